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


def test_who_dies_takes_its_mass_and_who_leaves_hands_it_over(tmp_path: Path) -> None:
    outcome = run(tmp_path, "--nodes", "5", "--dies", "n1=3", "--leaves", "n3=4")
    ends = {peer["node"]: (peer["reason"], peer["steps"]) for peer in outcome["peers"]}
    assert ends["n1"] == ("died", 3)
    assert ends["n3"] == ("left", 4)
    assert {ends[node] for node in ("n0", "n2", "n4")} == {("completed", 8)}
    mass = outcome["mass"]
    assert mass["exact"]
    assert mass["live"] + mass["lost"] == mass["minted"] == 5 * 2**52
    assert mass["lost"] > 0
    assert "the nodes are n0 to n1" in run(tmp_path, "--nodes", "2", "--dies", "n7=1", code=1)


def test_without_waiting_a_slow_node_makes_fewer_steps_that_count_for_as_much(tmp_path: Path) -> None:
    outcome = run(tmp_path, "--nodes", "3", "--slow", "n1=0.25", more='protocol = "agp"\nrate_correction = "asyspa"\n')
    steps = {peer["node"]: peer["steps"] for peer in outcome["peers"]}
    assert steps["n0"] == steps["n2"] == 8
    assert steps["n1"] < 8
    assert {peer["reason"] for peer in outcome["peers"]} == {"completed"}
    assert (outcome["mass"]["exact"], outcome["mass"]["in_flight"]) == (True, 0)
    waits = [peer["blocked"] for peer in outcome["peers"] if peer["node"] != "n1"]
    assert waits == [0.0, 0.0]  # nobody waited for the slow one


def test_pairs_come_to_one_model_although_one_is_slow_and_messages_are_lost(tmp_path: Path) -> None:
    more = 'protocol = "ad-psgd"\ntopology = { name = "random", options = { peers = 1 } }\n'
    outcome = run(tmp_path, "--nodes", "4", "--slow", "n1=0.5", "--loss", "0.2", "--delay", "0.2", more=more, steps=24)
    assert {peer["reason"] for peer in outcome["peers"]} == {"completed"}
    mass = outcome["mass"]
    assert (mass["exact"], mass["in_flight"], mass["live"]) == (True, 0, 4 * 2**52)
    assert outcome["lost_messages"] > 0
    assert [peer["blocked"] for peer in outcome["peers"]] == [0.0] * 4
    assert outcome["metrics"]["accuracy"] > 0.5
