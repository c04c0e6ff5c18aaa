"""Averaging in pairs: what it comes to, that nobody waits, and that no mass is made or lost whatever breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.exchange import Exchange
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.push_sum.pairs import owed, pair_parts
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.random import Matching, Random
from covey.gossip.topologies.regular import Complete, Exponential, Ring
from covey.testing.swarm_ports import Training, Vector, no_training
from covey.testing.swarms import VirtualSwarm, uneven
from tests.unit.gossip.networks import consensus_at_speeds

A, B, C = Incarnation("a"), Incarnation("b"), Incarnation("c")


def swarm_of(
    n: int, topology: Topology, steps: int, training: Training = no_training, *, has_slow_disks: bool = False
) -> VirtualSwarm:
    rng = np.random.default_rng(n)
    models: dict[str, Vector] = {f"node-{i}": rng.standard_normal(3) for i in range(n)}
    policy = PushSumPolicy(steps, None, pairs=True)
    return VirtualSwarm(models, Planner(topology, Uniform(), 7), policy, training, has_slow_disks=has_slow_disks)


def models_of(swarm: VirtualSwarm) -> dict[str, Any]:
    return {node.me.node: node.z for node in swarm.nodes.values()}


def exchange_of(me: Incarnation) -> Exchange:
    return Exchange(me, [A, B, C], ONE, 3 * ONE, is_met=True)


def test_who_is_asked_gives_as_much_back_and_is_not_asked_for_more() -> None:
    a, b = exchange_of(A), exchange_of(B)
    (request,) = a.give(pair_parts(a, [B, C], 0), 0)
    assert (request.peer, request.units) == (B, ONE // 2)
    assert owed(a, B) == -ONE // 2
    b.arrived(ev.Arrived(A, request.sequence, request.units, 0, 0.0), 1)
    assert pair_parts(a, [B, C], 1) == {}  # it has asked, and waits for no more than that
    answer, own = sorted(b.give(pair_parts(b, [A, C], 0), 0), key=lambda batch: batch.peer)
    assert (answer.peer, answer.units, owed(b, A)) == (A, ONE // 2, 0)
    assert (own.peer, own.units) == (C, ONE // 4)  # a request of its own goes to somebody else
    a.arrived(ev.Arrived(B, answer.sequence, answer.units, 0, 0.0), 1)
    assert owed(a, B) == 0
    assert a.ledger.live == ONE


def test_two_that_ask_each_other_at_once_have_answered_each_other() -> None:
    a, b = exchange_of(A), exchange_of(B)
    for one, other in ((a, b), (b, a)):
        (request,) = one.give(pair_parts(one, [other.me], 0), 0)
        one.delivered(request.peer, request.sequence)
        other.arrived(ev.Arrived(one.me, 1, request.units, 0, 0.0), 1)
    assert (owed(a, B), owed(b, A)) == (0, 0)
    assert a.ledger.live == b.ledger.live == ONE


def test_a_circle_in_which_each_asked_the_next_comes_to_rest() -> None:
    swarm = swarm_of(3, Ring({"directions": 1}), 6)
    swarm.begin()
    swarm.run()
    assert [node.finished for node in swarm.nodes.values()] == ["completed"] * 3
    assert swarm.audit().is_exact


def test_a_pair_comes_to_the_mean_of_what_both_sent_while_the_one_who_asked_goes_on() -> None:
    """In additive form: x_i becomes x_i + (sent_j - sent_i) / 2, with what it learnt meanwhile."""

    def training(node: str, step: int, z: Vector, scale: float) -> Vector:
        return z + np.array([1.0, 0.0, 0.0]) * scale if node == "node-0" and step < 4 else z

    swarm = swarm_of(2, Complete(), 40, training)
    first = {name: z.copy() for name, z in models_of(swarm).items()}
    swarm.begin()
    run_evenly(swarm)
    total = sum(first.values()) + np.array([4.0, 0.0, 0.0])  # each training counts for one, whatever the mass was then
    assert np.abs(swarm.sum_of_models() - total).max() < 1e-12
    assert uneven(models_of(swarm)) < 1e-5


def run_evenly(swarm: VirtualSwarm) -> None:
    """Nodes of one speed, and messages that are quicker than a step."""
    while any(node.is_busy for node in swarm.up):
        while swarm.messages:
            swarm.deliver()
        for node in swarm.up:
            node.finish_work()
    swarm.settle()


@pytest.mark.parametrize(
    "topology",
    [Random({"peers": 1}), Matching(), Ring(), Exponential(), Complete()],
    ids=lambda topology: type(topology).__name__,
)
def test_all_come_to_the_mean_and_have_their_mass_again(topology: Topology) -> None:
    swarm = swarm_of(8, topology, 120)
    mean = np.mean(list(models_of(swarm).values()), axis=0)
    swarm.begin()
    run_evenly(swarm)
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.live == 8 * ONE
    assert audit.in_flight == 0
    assert np.abs(swarm.sum_of_models() / 8 - mean).max() < 1e-12
    assert uneven(models_of(swarm)) < 1e-3
    assert all(ONE // 4 <= node.ledger.live <= 3 * ONE for node in swarm.nodes.values())


def test_nobody_waits_for_a_slow_node() -> None:
    swarm = swarm_of(4, Complete(), 60)
    swarm.begin()
    slow, *others = swarm.nodes.values()
    for _ in range(30):
        while swarm.messages:
            swarm.deliver()
        for node in others:
            for _ in range(3):  # a training, its publication, and the mixture
                node.finish_work()
    assert slow.machine.step == 0
    assert min(node.machine.step for node in others) >= 25
    swarm.settle()
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    assert swarm.audit().live == 4 * ONE


def test_what_a_dead_node_was_asked_for_is_reported_as_uncertain() -> None:
    swarm = swarm_of(3, Complete(), 40)
    swarm.begin()
    dead = Incarnation("node-1")
    swarm.nodes[dead].crash()
    swarm.run()
    uncertain = swarm.nodes[Incarnation("node-0")].ledger.out[dead].waiting
    assert uncertain == ONE // 2
    for node in swarm.up:
        node.take(ev.PeerSuspected(dead, 0.0))
    swarm.run()
    swarm.evict(dead)
    swarm.settle()
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.uncertain >= uncertain


def test_at_unequal_speeds_corrected_pairs_come_to_the_optimum_of_all() -> None:
    assert consensus_at_speeds(correction="none", pairs=True) > 0.5  # fast nodes count for more
    assert abs(consensus_at_speeds(correction="elapsed", pairs=True)) < 0.05
    assert abs(consensus_at_speeds(correction="asyspa", pairs=True)) < 0.05
