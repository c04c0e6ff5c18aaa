"""Real nodes without a coordinator: the models of the simulation, all mass accounted for, whatever breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from covey.client.experiments.gossip import MEAN
from covey.errors import CoveyError
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.traces import check_trace
from tests.integration.specs import GOSSIP

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ONE = 1 << 52


def check(nodes: GossipNodes, outcome: Any) -> None:
    """Every node has the model of the simulation, and no mass was made or lost."""
    assert nodes.models() == [peer["model_sha256"] for peer in outcome["peers"]]
    mass = nodes.audit()
    assert (mass["exact"], mass["in_flight"], mass["lost"], mass["findings"]) == (True, 0, 0, [])
    assert mass["live"] == mass["minted"] == ONE * len(nodes.names)


def check_timeline(nodes: GossipNodes, file: Path, steps: int) -> None:
    """All that the nodes have on record is in the timeline: each sent one batch a step, and took as many."""
    folders = [nodes.folder(index) for index in range(len(nodes.names))]
    said = json.loads(nodes.cli("gossip", "trace", *folders, "--out", file, "--json"))
    slices = check_trace(json.loads(file.read_text()))
    batches = steps * len(nodes.names)
    assert (said["nodes"], said["exchanges"]) == (nodes.names, batches)
    exchanges = [event for event in slices if event["cat"] == "exchange"]
    assert len(exchanges) == 2 * batches
    assert sum(event["args"]["mass"] for event in exchanges if " to " in event["name"]) > 0
    work = {event["name"].split()[0] for event in slices if event["cat"] == "work"}
    assert work == {"train", "apply", "publish", "mix"}
    assert any(event["name"] == "wait" for event in slices)


def test_three_nodes_one_only_calls_one_waits_at_a_relay_and_one_is_killed_and_moves(tmp_path: Path) -> None:
    spec = GOSSIP.format(steps=12, nodes=3) + "keep_every = 4\n"
    outcome = simulated(tmp_path, spec, 3)
    with GossipNodes(tmp_path / "real", spec, 3, callers=[0], relayed=[2], pause_s=60) as nodes:
        nodes.start_all()
        nodes.until_step(1, 4, 120)
        nodes.kill(1)
        nodes.move(1)
        nodes.start(1)
        nodes.wait()
        check(nodes, outcome)
        assert "a peer has another address" in nodes.daemon(0).printed  # which calls, and is called by nobody
        check_timeline(nodes, tmp_path / "trace.json", 12)
        folders, file = [nodes.folder(index) for index in range(3)], tmp_path / "step-8.safetensors"
        exported = json.loads(nodes.cli("gossip", "export", *folders, "--step", 8, "--out", file, "--json"))
        assert [(node["node"], node["steps"]) for node in exported["nodes"]] == [(name, 8) for name in nodes.names]
        shorter = tmp_path / "shorter"  # mixing keeps the mean, so it is that of a run of nine steps
        shorter.mkdir()
        simulated(shorter, GOSSIP.format(steps=9, nodes=3), 3)
        expected, mean = load_file(shorter / "simulated" / MEAN), load_file(file)
        assert mean.keys() == expected.keys()
        assert all(torch.allclose(mean[name], expected[name], atol=1e-5) for name in mean)
        with pytest.raises(CoveyError, match=r"model of step 7; those that it keeps are of: 0, 4, 8, 12\n"):
            nodes.cli("gossip", "export", *folders, "--step", 7, "--out", file)


def test_nodes_whose_links_are_cut_at_the_end_part_from_each_other(tmp_path: Path) -> None:
    spec = GOSSIP.format(steps=4, nodes=3)
    with GossipNodes(tmp_path, spec, 3, relays=True) as nodes:
        nodes.start_all()
        nodes.until_step(0, 3, 120)
        for index in range(3):  # enough for a handshake, what was signed, and a word or two, again and again
            nodes.relay(index).do(lambda relay: relay.cut_each("up", after_bytes=8_000))
        nodes.until_step(0, 4, 120)
        for index in range(3):
            nodes.relay(index).partition()
        for index in range(3):
            nodes.relay(index).heal()
        nodes.wait()
        assert nodes.audit()["exact"]
        for name in nodes.names:  # else it waited its two minutes for a word that nobody says any more
            assert "is not sure" not in (tmp_path / f"{name}.log").read_text()


def test_steps_that_only_average_make_all_models_one_also_where_a_node_is_killed(tmp_path: Path) -> None:
    spec = GOSSIP.format(steps=4, nodes=4) + 'global_every = 2\ntopology = { name = "ring" }\n'
    outcome = simulated(tmp_path, spec, 4)
    assert [peer["steps"] for peer in outcome["peers"]] == [4 + 2 * 2] * 4
    assert max(peer["distance"] for peer in outcome["peers"]) < 1e-5
    with GossipNodes(tmp_path / "real", spec, 4, pause_s=60) as nodes:
        nodes.start_all()
        nodes.until_step(1, 3, 120)
        nodes.kill(1)
        nodes.start(1)
        nodes.wait()
        check(nodes, outcome)


def test_pairs_keep_all_mass_where_a_node_is_killed(tmp_path: Path) -> None:
    spec = GOSSIP.format(steps=40, nodes=3) + 'protocol = "ad-psgd"\nrate_correction = "none"\n'
    with GossipNodes(tmp_path / "real", spec, 3) as nodes:
        nodes.start_all()
        nodes.until_step(1, 3, 120)
        nodes.kill(1)
        nodes.start(1)
        nodes.wait()
        assert [nodes.steps(index) for index in range(3)] == [40] * 3
        mass = nodes.audit()
        assert (mass["exact"], mass["in_flight"], mass["lost"], mass["findings"]) == (True, 0, 0, [])
        assert mass["live"] == mass["minted"] == 3 * ONE


def test_eight_nodes_whose_connections_are_cut_all_the_time_have_coded_models_a_quarter_as_long(tmp_path: Path) -> None:
    spec = GOSSIP.format(steps=8, nodes=8) + '[exchange]\ncodec = "int8"\n'
    outcome = simulated(tmp_path, spec, 8)
    with GossipNodes(tmp_path / "real", spec, 8, relays=True) as nodes:
        for index in range(8):
            nodes.relay(index).do(lambda relay: relay.cut_each("up", after_bytes=15_000))
        nodes.start_all()
        nodes.wait(200)
        assert sum(nodes.relay(index).cuts for index in range(8)) > 8
        check(nodes, outcome)
        said = json.loads(nodes.cli("gossip", "trace", nodes.folder(0), "--out", tmp_path / "trace.json", "--json"))
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        sizes = {event["args"]["size_bytes"] for event in events if event.get("cat") == "exchange"}
        assert said["exchanges"] > 0
        assert len(sizes) == 1
        assert sizes.pop() < 0.3 * outcome["model_bytes"]
