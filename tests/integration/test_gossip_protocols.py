"""Protocols in which the receiver weighs, on real nodes: the models of the simulation, each batch had once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from covey.errors import CoveyError
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.traces import check_trace
from tests.integration.specs import GOSSIP

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
SPEC = (
    GOSSIP
    + """
protocol = {{ name = "{protocol}" }}
topology = {{ name = "{topology}" }}
mixing = {{ name = "{mixing}" }}
"""
)
NODES = 4
PAUSE_S = 60.0
"""How long the others wait for a node that is started again: one that is suspected has no share meanwhile."""


def spec_of(protocol: str, topology: str = "complete", mixing: str = "metropolis-hastings", steps: int = 3) -> str:
    return SPEC.format(steps=steps, nodes=NODES, protocol=protocol, topology=topology, mixing=mixing)


def check(nodes: GossipNodes, outcome: Any) -> None:
    """Every node has the model of the simulation, and had each batch once."""
    assert nodes.models() == [peer["model_sha256"] for peer in outcome["peers"]]
    for audit in (nodes.audit(), outcome["mass"]):
        assert (audit["exact"], audit["in_flight"], audit["findings"]) == (True, 0, [])
        assert audit["weighs"] == "receiver"
        assert audit["delivered"] == outcome["messages"]


@pytest.mark.parametrize(
    "spec",
    [spec_of("epidemic", "random", "uniform"), spec_of("clipped-gossip")],
    ids=["weights of a step", "a rule that goes by the models"],
)
def test_real_nodes_have_the_models_of_the_simulation(tmp_path: Path, spec: str) -> None:
    outcome = simulated(tmp_path, spec, NODES)
    with GossipNodes(tmp_path / "real", spec, NODES) as nodes:
        nodes.start_all()
        nodes.wait()
        check(nodes, outcome)


def test_a_node_under_d_psgd_that_is_killed_comes_to_the_model_that_it_would_have_had(tmp_path: Path) -> None:
    spec = spec_of("d-psgd", "ring", steps=8)
    outcome = simulated(tmp_path, spec, NODES)
    assert outcome["messages"] == NODES * 2 * 8
    with GossipNodes(tmp_path / "real", spec, NODES, pause_s=PAUSE_S) as nodes:
        nodes.start_all()
        nodes.until_step(1, 3, 120)
        nodes.kill(1)
        nodes.start(1)
        nodes.wait()
        check(nodes, outcome)
        check_what_is_shown(nodes, tmp_path)


def check_what_is_shown(nodes: GossipNodes, tmp_path: Path) -> None:
    """Status, audit, timeline and consensus of a run without mass."""
    folders = [nodes.folder(index) for index in range(NODES)]
    status = nodes.cli("gossip", "status", "--data-dir", folders[0])
    assert "d-psgd" in status
    assert "mass" not in status
    assert f"exact: {NODES * 2 * 8} models, each had once; no mass" in nodes.cli("gossip", "audit", *folders)
    trace, out = tmp_path / "trace.json", tmp_path / "mean.safetensors"
    said = json.loads(nodes.cli("gossip", "trace", *folders, "--out", trace, "--json"))
    assert said["exchanges"] == NODES * 2 * 8
    check_trace(json.loads(trace.read_text()))
    consensus = json.loads(nodes.cli("gossip", "export", *folders, "--out", out, "--evaluate", "--json"))
    assert out.stat().st_size > 10_000
    assert {node["weight"] for node in consensus["nodes"]} == {1.0}  # all count alike
    assert consensus["weighs"] == "receiver"
    for model in (consensus, *consensus["nodes"]):
        assert 0.2 < model["metrics"]["accuracy"] <= 1.0  # by chance it is 0.1; a node has seen few classes
    assert consensus["spread"] == max(node["distance"] for node in consensus["nodes"])
    with pytest.raises(CoveyError, match="does not keep its model of step 1; those that it keeps are of: none"):
        nodes.cli("gossip", "export", folders[0], "--out", out, "--step", 1)
