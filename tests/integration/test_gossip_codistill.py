"""Codistillation among real nodes: the models of the simulation where they wait, and nobody blocked where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covey.errors import CoveyError
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
options = {{ common = 200 }}
{nodes}
[data]
partition = "dirichlet"
alpha = 1.0
[training]
local_steps = 4
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = 3
overlap = {overlap}
protocol = {{ name = "codistill", options = {options} }}
topology = {{ name = "complete" }}
"""
OWN = "[task.nodes.n1]\nhidden = 96"
"""A wider model on the second node."""
POINTS = ["gossip-made:4", "gossip-publish-recorded:2"]
"""Fault points at which the second node is killed, one after the other."""


def text_of(options: str, steps: int = 6, nodes: str = "", overlap: int = 0) -> str:
    return SPEC.format(options=options, steps=steps, nodes=nodes, overlap=overlap)


@pytest.mark.parametrize("exchange", ["predictions", "checkpoints"])
def test_killed_nodes_that_are_waited_for_come_to_the_models_of_the_simulation(tmp_path: Path, exchange: str) -> None:
    predicts = exchange == "predictions"
    options = "{ classes = 10, waits = true }" if predicts else '{ exchange = "checkpoints", waits = true }'
    spec = text_of(options, nodes=OWN if predicts else "", overlap=int(predicts))
    outcome = simulated(tmp_path, spec, 3)
    assert (outcome["model_sha256"], outcome["metrics"], outcome["messages"]) == ("", {}, 3 * 2 * 6)
    if predicts:
        assert outcome["model_bytes"] == 4 * 32 * (10 * 4 + 8)
    with GossipNodes(tmp_path / "real", spec, 3, pause_s=60) as nodes:
        for index in (0, 2):
            nodes.start(index)
        for point in POINTS if predicts else POINTS[:1]:
            daemon = nodes.start(1, env={"COVEY_FAULTS": point})
            assert wait_until(lambda: not nodes.daemon(1).alive, 150)
            assert daemon.wait(1) == -9
        nodes.start(1)
        nodes.wait()
        assert nodes.models() == [peer["model_sha256"] for peer in outcome["peers"]]
        assert len(set(nodes.models())) == 3
        audit = nodes.audit()
        assert (audit["exact"], audit["in_flight"], audit["findings"]) == (True, 0, [])
        folders = [nodes.folder(index) for index in range(3)]
        for folder in folders:  # what is superseded is gone: the model, what neighbours said, the last body
            assert len(list(folder.glob("gossip/gossip/1/files/artifacts/*"))) <= 3
        if predicts:
            check_what_is_exported(nodes, tmp_path / "own.safetensors", outcome["peers"][1])


def check_what_is_exported(nodes: GossipNodes, out: Path, peer: dict[str, object]) -> None:
    """Each node's own model, evaluated with its own architecture; no mean of several."""
    exported = json.loads(nodes.cli("gossip", "export", nodes.folder(1), "--out", out, "--evaluate", "--json"))
    assert exported["model_sha256"] == peer["model_sha256"]
    assert exported["metrics"] == peer["metrics"]
    with pytest.raises(CoveyError, match="nodes keep models of their own, which have no mean"):
        nodes.cli("gossip", "export", nodes.folder(0), nodes.folder(1), "--out", out)


def test_a_node_that_is_away_holds_up_nobody_and_comes_back(tmp_path: Path) -> None:
    spec = text_of("{ classes = 10 }", steps=30, overlap=2)
    with GossipNodes(tmp_path, spec, 3, pause_s=60) as nodes:  # so nobody takes it for gone
        nodes.start_all()
        nodes.until_step(2, 3, 120)
        nodes.kill(2)
        for index in (0, 1):
            nodes.until_step(index, 29, 120)  # the newest on record, until everybody is through
        assert nodes.steps(2) < 29
        nodes.start(2)
        nodes.wait()
        assert nodes.steps(2) == 30
        audit = nodes.audit()
        assert (audit["exact"], audit["findings"]) == (True, [])
        assert len(set(nodes.models())) == 3
