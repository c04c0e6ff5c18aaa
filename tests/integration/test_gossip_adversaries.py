"""Adversaries among real gossip nodes: what they send is what the simulation says; who lies about its mass is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from covey.client.gossip_nodes import read_node
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.forks import run_covey

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 1
[gossip]
steps = 6
min_nodes = 3
"""


def covey(*arguments: object, code: int = 0) -> Any:
    """What a command with --json printed."""
    done = run_covey([*arguments, "--json"], env=dict(os.environ), timeout_s=200)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_an_adversary_is_loud_on_record_and_does_what_the_simulation_does(tmp_path: Path) -> None:
    attack = ["--attack", "scaled=1", "--attack-option", "scaled.factor=-2"]
    outcome = simulated(tmp_path, SPEC, 3, *attack)
    with GossipNodes(tmp_path / "real", SPEC, 3) as nodes:
        nodes.start(2, options=["--attack", "scaled", "--attack-option", "factor=-2"])
        nodes.start(0)
        nodes.start(1)
        nodes.wait()
        assert nodes.models()[:2] == [peer["model_sha256"] for peer in outcome["peers"]][:2]
        assert "DRILL: this node is an adversary" in nodes.daemon(2).printed
        assert [read_node(nodes.folder(index)).metrics.get("drill") for index in range(3)] == [None, None, 1.0]
        mass = nodes.audit()
        assert (mass["exact"], mass["named"]) == (True, [])  # of models an account says nothing
    assert outcome["attacks"] == {"scaled": 1}
    assert [peer["distance"] is None for peer in outcome["peers"]] == [False, False, True]


def test_a_node_that_lies_about_its_mass_is_named(tmp_path: Path) -> None:
    """It is refused in the end, in lock step, where everybody waits for everybody: the others come to theirs."""
    spec = SPEC.replace("steps = 6", "steps = 12")
    (tmp_path / "simulated.toml").write_text(spec)
    outcome = covey("gossip", "simulate", tmp_path / "simulated.toml", "--nodes", 3, "--attack", "lying-mass=1")
    assert [(peer["reason"], peer["steps"]) for peer in outcome["peers"]] == [("completed", 12)] * 3
    with GossipNodes(tmp_path, spec, 3) as nodes:
        nodes.start(2, options=["--attack", "lying-mass"])
        nodes.start(0)
        nodes.start(1)
        for index in range(2):
            assert nodes.daemon(index).wait(200) == 0
        nodes.daemon(2).terminate()
        nodes.daemon(2).wait(60)
        said = [covey("gossip", "status", "--data-dir", nodes.folder(index)) for index in range(2)]
        assert [node["ended"] for node in said] == ["completed"] * 2
        claims = [claim for node in said for claim in node["contradictions"]]
        assert claims
        begins = ("nobody waits for n2 any more: batch ", "n2 gave n")  # who refused it, and who was told
        assert all(claim.startswith(begins) for claim in claims)
        folders = [nodes.folder(index) for index in range(3)]
        mass = covey("gossip", "audit", *folders, code=1)
        assert {each["node"] for each in mass["named"]} == {"n2"}
        mass = covey("gossip", "audit", *folders[:2], code=1)  # it hands over nothing: the others are through
        assert {each["node"] for each in mass["named"]} == {"n2"}
        accounts = []
        for folder in folders:  # as organisations do it that share no disk
            accounts.append(tmp_path / f"{folder.name}.json")
            accounts[-1].write_text(json.dumps(covey("gossip", "status", "--data-dir", folder)))
        authority = ["--authority", tmp_path / "ca" / "authority.crt"]
        mass = covey("gossip", "audit", *accounts, *authority, code=1)
        assert {each["node"] for each in mass["named"]} == {"n2"}
        assert not covey("gossip", "audit", *accounts, code=1)["signatures"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["label-flip"], "is not for gossip"),
        (["no-such"], "no attack named 'no-such'"),
        (["lying-mass", "--attack-option", "factor=1"], "a whole number from 2"),
        (["scaled", "--attack-option", "facto=1"], "facto"),
    ],
)
def test_an_attack_that_cannot_be_is_refused_before_the_start(tmp_path: Path, options: list[str], words: str) -> None:
    with GossipNodes(tmp_path, SPEC, 1) as nodes:
        start = ["gossip", "start", nodes.spec, "--data-dir", nodes.folder(0), "--peers", nodes.peers]
        done = run_covey([*start, "--attack", *options], env=dict(os.environ), timeout_s=60)
        assert done.returncode != 0
        assert words in done.stderr
