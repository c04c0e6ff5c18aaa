"""Drills on gossip nodes' processes: a partition in two halves that heals, and a node that is dead for good."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
ONE = 1 << 52
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 1
[gossip]
protocol = "agp"
rate_correction = "none"
steps = {steps}
min_nodes = 4
"""


def split_in_halves(nodes: GossipNodes) -> None:
    """From now on started nodes n2 and n3 call each other past their relays: those stand between the halves only."""
    direct = nodes.peers.read_text()
    for index in (2, 3):
        direct = direct.replace(nodes.address(index), nodes.direct_address(index))
    nodes.peers = nodes.root / "second-half.toml"
    nodes.peers.write_text(direct)


def peers_of(nodes: GossipNodes, index: int) -> dict[str, str]:
    """By name: whether a node has a peer for there or away, by its newest publication."""
    shown = json.loads(nodes.cli("gossip", "peers", "--data-dir", nodes.folder(index), "--json"))
    return {peer["peer"]: peer["state"] for peer in shown["peers"]}


def is_seen(nodes: GossipNodes, index: int, states: dict[str, str]) -> bool:
    """Whether a node has its peers for just that."""
    return peers_of(nodes, index) == states


def test_a_partition_in_two_halves_heals_and_no_mass_was_made_or_lost(tmp_path: Path) -> None:
    with GossipNodes(tmp_path, SPEC.format(steps=2000), 4, relays=True) as nodes:
        nodes.start(0)
        nodes.start(1)
        split_in_halves(nodes)
        nodes.start(2)
        nodes.start(3)
        nodes.until_step(0, 3, 120)
        nodes.until_step(3, 3, 120)
        for index in (2, 3):  # those with the lesser name call: what crosses goes through the relays of n2 and n3
            nodes.relay(index).partition()
        halves = {0: {"n1": "there", "n2": "away", "n3": "away"}, 3: {"n0": "away", "n1": "away", "n2": "there"}}
        for index, half in halves.items():
            assert wait_until(partial(is_seen, nodes, index, half), 120)
        steps = [nodes.steps(index) for index in range(4)]
        for index in range(4):
            nodes.until_step(index, steps[index] + 3, 120)  # both halves go on
        for index in (2, 3):
            nodes.relay(index).heal()
        for index in range(4):
            everybody = dict.fromkeys(set(nodes.names) - {nodes.names[index]}, "there")
            assert wait_until(partial(is_seen, nodes, index, everybody), 120)
        for index in range(4):
            nodes.kill(index)
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["lost"], mass["named"]) == (True, [], 0, [])
        assert mass["live"] + mass["in_flight"] == mass["minted"] == 4 * ONE


def test_a_node_that_is_dead_for_good_takes_along_what_it_had_and_no_more(tmp_path: Path) -> None:
    with GossipNodes(tmp_path, SPEC.format(steps=60), 4) as nodes:
        nodes.start_all()
        nodes.until_step(3, 5, 120)
        nodes.kill(3)
        nodes.daemons[3] = None
        nodes.cli("ca", "evict", "n3", "--run", "gossip", "--peers", nodes.peers, "--dir", nodes.root / "ca")
        nodes.wait()
        folders = [nodes.folder(index) for index in range(3)]
        mass = json.loads(nodes.cli("gossip", "audit", *folders, "--json"))
        assert (mass["exact"], mass["in_flight"], mass["minted"], mass["named"]) == (True, 0, 4 * ONE, [])
        assert mass["live"] == 4 * ONE - mass["lost"]
        assert 0 < mass["lost"] + mass["uncertain"] < 4 * ONE
