"""Gossip with real training: simulated nodes, whose models do not depend on what the network does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from covey.testing.launch.forks import run_covey

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 5
learning_rate = 0.1
[gossip]
steps = 8
"""


def run(tmp_path: Path, *options: str, code: int = 0, more: str = "", steps: int = 8) -> Any:
    (tmp_path / "gossip.toml").write_text(SPEC.replace("steps = 8", f"steps = {steps}") + more)
    done = run_covey(["gossip", "simulate", tmp_path / "gossip.toml", *options, "--json"], timeout_s=250)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_in_lock_step_a_bad_network_costs_time_and_changes_no_model(tmp_path: Path) -> None:
    good = run(tmp_path, "--nodes", "4", "--data-dir", str(tmp_path / "good"))
    bad = run(tmp_path, "--nodes", "4", "--loss", "0.3", "--delay", "0.4", "--slow", "n2=0.5")
    assert [peer["model_sha256"] for peer in good["peers"]] == [peer["model_sha256"] for peer in bad["peers"]]
    assert good["model_sha256"] == bad["model_sha256"]
    assert good["messages"] == 4 * 8
    assert bad["lost_messages"] > 0
    assert bad["virtual_time"] > good["virtual_time"] == 8
    for outcome in (good, bad):
        mass = outcome["mass"]
        assert (mass["exact"], mass["in_flight"], mass["lost"]) == (True, 0, 0)
        assert mass["live"] == mass["minted"] == 4 * 2**52
        assert {peer["reason"] for peer in outcome["peers"]} == {"completed"}
    assert good["metrics"]["accuracy"] > 0.5  # each node has two of ten classes: alone it could not
    model = load_file(tmp_path / "good" / "mean.safetensors")
    assert sum(tensor.numel() for tensor in model.values()) > 1000
