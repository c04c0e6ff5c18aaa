"""Drills on gossip nodes' processes: two silent peers, a partition that heals, and a node that is dead for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from covey.client.gossip_nodes import read_node
from covey.simulation.gossip.simulation import MEAN
from covey.testing.chaos.gossip.arena import allow_paced
from covey.testing.chaos.gossip.learned import Learned, learned, values_of
from covey.testing.chaos.gossip.paced import PACED
from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.processes import standing_still, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
ONE = 1 << 52
STEPS, LONGER = 40, 60
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
    """Whether a node has its peers for there or away just so, by what its process says."""
    now = read_node(nodes.folder(index)).now
    return now is not None and {peer["peer"]: peer["state"] for peer in now.peers} == states


def silent(nodes: GossipNodes, *which: int) -> AbstractContextManager[None]:
    """Meanwhile these nodes' workers and daemons do nothing, and say nothing, all at once."""
    return standing_still([*nodes.workers(which), *(nodes.daemon(index).pid for index in which)])


def near(what: str, reached: Learned, undisturbed: Any, mass: dict[str, Any]) -> None:
    """What nodes came to is near to what they come to undisturbed; it is said how near."""
    accuracy = undisturbed["metrics"]["accuracy"]
    distance = float((reached.values - values_of(Path(undisturbed["data_dir"]) / MEAN)).norm())
    print(f"{what}: {distance:.3f}; {reached.accuracy:.3f}, {accuracy:.3f}; {mass}")
    assert distance < 3.0
    assert reached.accuracy > accuracy - 0.15


def check_everybody(nodes: GossipNodes, states: Callable[[str, str], str], which: Collection[int]) -> None:
    """Some nodes come to have each other node as a function of both names says: there, or away."""
    for index in which:
        name = nodes.names[index]
        expected = {peer: states(name, peer) for peer in nodes.names if peer != name}
        assert wait_until(partial(sees, nodes, index, expected), 120, poll_s=0.5)


def check_go_on(nodes: GossipNodes, which: Collection[int]) -> None:
    """Some nodes make three further steps."""
    steps = {index: nodes.steps(index) for index in which}
    for index in which:
        nodes.until_step(index, steps[index] + 3, 120)


def test_two_peers_fall_silent_at_once_and_a_partition_heals_and_no_mass_was_made_or_lost(tmp_path: Path) -> None:
    spec = partial(GOING_SPEC.format, path=PACED, steps=LONGER, protocol=GOING["agp"])
    everybody = range(5)
    with GossipNodes(tmp_path, spec(seconds=0.2), 5, links=True) as nodes:
        allow_paced(nodes)
        nodes.start_all()
        for index in everybody:
            nodes.until_step(index, 3, 120)
        with silent(nodes, 1, 3):
            with standing_still(nodes.workers([0, 2, 4])):
                check_everybody(nodes, lambda _, peer: "away" if peer in ("n1", "n3") else "there", (0, 2, 4))
            check_go_on(nodes, (0, 2, 4))
        between = nodes.links([0, 1], [2, 3, 4])
        with standing_still(nodes.workers(everybody)):
            check_everybody(nodes, lambda *_: "there", everybody)
            for link in between:
                link.partition()
            check_everybody(nodes, lambda *two: "there" if len({*two} & {"n0", "n1"}) != 1 else "away", everybody)
        check_go_on(nodes, everybody)  # both halves
        with standing_still(nodes.workers(everybody)):
            for link in between:
                link.heal()
            check_everybody(nodes, lambda *_: "there", everybody)
        nodes.wait()
        assert [nodes.steps(index) for index in everybody] == [LONGER] * 5
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["lost"], mass["in_flight"], mass["named"]) == (True, [], 0, 0, [])
        assert mass["live"] == mass["minted"] == 5 * ONE
        reached = learned([nodes.folder(index) for index in everybody])
    near("two silent, and a partition", reached, simulated(tmp_path, spec(seconds=0.0), 5), mass)


def has_left_or_says_how(nodes: GossipNodes, index: int, command: str) -> bool:
    """Whether a node that was asked to leave has left, or says which command ends its waiting for the dead one."""
    node = read_node(nodes.folder(index))
    return node.facts.ended == "left" or (node.now is not None and command in node.now.waits_for)


@pytest.mark.parametrize("protocol", GOING)
def test_a_node_is_dead_for_good_and_another_one_leaves(tmp_path: Path, protocol: str) -> None:
    spec = partial(GOING_SPEC.format, path=PACED, steps=STEPS, protocol=GOING[protocol])
    with GossipNodes(tmp_path, spec(seconds=0.2), 4) as nodes:
        allow_paced(nodes)
        nodes.start_all()
        nodes.until_step(3, 3, 120)
        nodes.kill(3)
        nodes.daemons[3] = None
        with standing_still(nodes.workers([0, 1])):
            nodes.cli("gossip", "leave", "--data-dir", nodes.folder(2))
            assert wait_until(partial(has_left_or_says_how, nodes, 2, "covey ca evict n3"), 120, poll_s=0.5)
            nodes.cli("ca", "evict", "n3", "--run", "gossip", "--peers", nodes.peers, "--dir", nodes.root / "ca")
        nodes.wait()
        assert [read_node(nodes.folder(index)).facts.ended for index in range(3)] == ["completed", "completed", "left"]
        assert [nodes.steps(0), nodes.steps(1)] == [STEPS, STEPS]
        folders = [nodes.folder(index) for index in range(3)]
        mass = json.loads(nodes.cli("gossip", "audit", *folders, "--json"))
        assert (mass["exact"], mass["findings"], mass["named"]) == (True, [], [])
        assert mass["left"] == [{"node": "n2", "incarnation": 1}]
        if mass["weighs"] == "mass":
            assert mass["minted"] == 4 * ONE
            assert mass["live"] == 4 * ONE - mass["lost"]
            assert 0 < mass["lost"] + mass["uncertain"] < 4 * ONE
            assert read_node(nodes.folder(2)).ledger.live == mass["in_flight"] == 0
        survivors = learned(folders[:2])
    near(protocol, survivors, simulated(tmp_path, spec(seconds=0.0), 4), mass)
