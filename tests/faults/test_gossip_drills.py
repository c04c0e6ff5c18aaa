"""Drills on gossip nodes' processes: a partition in two halves that heals, and a node that is dead for good."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from covey.client.gossip_nodes import read_node
from covey.simulation.gossip.simulation import MEAN
from covey.testing.chaos.gossip.arena import allow_paced
from covey.testing.chaos.gossip.learned import learned, values_of
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
ONE = 1 << 52
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "{path}"
options = {{ seconds = 0.2 }}
[training]
local_steps = 1
[gossip]
protocol = "agp"
rate_correction = "none"
steps = {steps}
min_nodes = 4
"""


STEPS = 40
GOING = {
    "agp": 'protocol = "agp"\nrate_correction = "none"',
    "d-psgd": 'protocol = "d-psgd"\ntopology = { name = "complete" }\nmixing = { name = "metropolis-hastings" }',
    "gradient-tracking": 'protocol = "gradient-tracking"',
}
"""[gossip] of runs from which nodes go: nobody waits; the receiver weighs; two ledgers, whose sums start anew."""
GOING_SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "{path}"
options = {{ seconds = {seconds} }}
[training]
local_steps = 5
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = 4
{protocol}
"""


def sees(nodes: GossipNodes, index: int, states: dict[str, str]) -> bool:
    """Whether a node has its peers for there or away just so, by its newest publication."""
    return {peer["peer"]: peer["state"] for peer in read_node(nodes.folder(index)).peers} == states


def test_a_partition_in_two_halves_heals_and_no_mass_was_made_or_lost(tmp_path: Path) -> None:
    with GossipNodes(tmp_path, SPEC.format(path=PACED, steps=2000), 4, links=True) as nodes:
        allow_paced(nodes)
        nodes.start_all()
        for index in range(4):
            nodes.until_step(index, 3, 120)
        between = nodes.links([0, 1], [2, 3])
        for link in between:
            link.partition()
        halves = {0: {"n1": "there", "n2": "away", "n3": "away"}, 3: {"n0": "away", "n1": "away", "n2": "there"}}
        for index, half in halves.items():
            assert wait_until(partial(sees, nodes, index, half), 120, poll_s=0.5)
        steps = [nodes.steps(index) for index in range(4)]
        for index in range(4):
            nodes.until_step(index, steps[index] + 3, 120)  # both halves go on
        for link in between:
            link.heal()
        for index in range(4):
            everybody = dict.fromkeys(set(nodes.names) - {nodes.names[index]}, "there")
            assert wait_until(partial(sees, nodes, index, everybody), 120, poll_s=0.5)
        for index in range(4):
            nodes.kill(index)
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["lost"], mass["named"]) == (True, [], 0, [])
        assert mass["live"] + mass["in_flight"] == mass["minted"] == 4 * ONE


@pytest.mark.parametrize("protocol", GOING)
def test_a_node_is_dead_for_good_and_another_one_leaves(tmp_path: Path, protocol: str) -> None:
    spec = partial(GOING_SPEC.format, path=PACED, steps=STEPS, protocol=GOING[protocol])
    with GossipNodes(tmp_path, spec(seconds=0.2), 4) as nodes:
        allow_paced(nodes)
        nodes.start_all()
        nodes.until_step(3, 3, 120)
        nodes.kill(3)
        nodes.daemons[3] = None
        nodes.cli("ca", "evict", "n3", "--run", "gossip", "--peers", nodes.peers, "--dir", nodes.root / "ca")
        nodes.cli("gossip", "leave", "--data-dir", nodes.folder(2))
        nodes.wait()
        assert [read_node(nodes.folder(index)).facts.ended for index in range(3)] == ["completed", "completed", "left"]
        assert [nodes.steps(0), nodes.steps(1)] == [STEPS, STEPS]
        folders = [nodes.folder(index) for index in range(3)]
        mass = json.loads(nodes.cli("gossip", "audit", *folders, "--json"))
        assert (mass["exact"], mass["in_flight"], mass["findings"], mass["named"]) == (True, 0, [], [])
        if mass["weighs"] == "mass":
            assert mass["minted"] == 4 * ONE
            assert mass["live"] == 4 * ONE - mass["lost"]
            assert 0 < mass["lost"] + mass["uncertain"] < 4 * ONE
            assert read_node(nodes.folder(2)).ledger.live == 0
        survivors = learned(folders[:2])
    undisturbed = simulated(tmp_path, spec(seconds=0.0), 4)
    distance = survivors.values - values_of(Path(undisturbed["data_dir"]) / MEAN)
    far = float(distance.norm())
    print(f"{protocol}: {far:.3f}; {survivors.accuracy:.3f}, {undisturbed['metrics']['accuracy']:.3f}; {mass}")
    assert far < 2.0
    assert survivors.accuracy > undisturbed["metrics"]["accuracy"] - 0.1
