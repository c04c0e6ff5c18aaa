"""How far a node goes with what it gives: the mass that it keeps, and what may be on its way."""

from __future__ import annotations

import numpy as np
import pytest

from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.regular import Complete, Exponential
from covey.testing.swarms import VirtualSwarm

STEPS = 12


def swarm_of(nodes: int, topology: Topology, policy: PushSumPolicy) -> VirtualSwarm:
    models = {f"node-{index}": np.full(2, float(index)) for index in range(nodes)}
    return VirtualSwarm(models, Planner(topology, Uniform(), 7), policy)


@pytest.mark.parametrize("overlap", [0, 1, None])
@pytest.mark.parametrize(("least", "gives"), [(ONE // 2, True), (ONE // 2 + 1, False)])
def test_a_node_that_would_keep_less_than_the_least_gives_nothing_and_nobody_waits_for_it(
    overlap: int | None, least: int, gives: bool
) -> None:
    swarm = swarm_of(2, Complete(), PushSumPolicy(STEPS, overlap, least=least))
    swarm.begin()
    swarm.run()
    swarm.settle()
    assert [node.finished for node in swarm.nodes.values()] == ["completed"] * 2
    assert [bool(node.ledger.out) for node in swarm.nodes.values()] == [gives] * 2
    assert min(node.ledger.live for node in swarm.nodes.values()) >= (ONE // 2 if gives else ONE)
    assert swarm.audit().is_exact


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_publications_are_on_their_way_than_may_be(most: int) -> None:
    swarm = swarm_of(8, Exponential(), PushSumPolicy(STEPS, None, max_in_flight=most, weighs="receiver"))
    swarm.begin()
    swarm.messages.clear()
    node, counts = next(iter(swarm.nodes.values())), []
    while node.is_busy and node.machine.step < STEPS:  # nothing arrives, so nothing is acknowledged
        node.finish_work()
        counts.append(len(set(node.machine.exchange.published.values())))
    assert node.machine.step == STEPS  # it goes on by itself
    assert max(counts) == most
