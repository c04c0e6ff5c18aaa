"""Push-sum on a network that loses, doubles, delays and reorders: what is kept, and what it costs.

The thresholds are those of the methods' own figures: mass is compared with ==.
"""

import random
from typing import Any

import numpy as np
import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.joining import asked_for_half
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.random import Random
from covey.gossip.topologies.regular import Complete, Exponential, Ring
from covey.testing.swarms import VirtualSwarm, uneven
from tests.unit.gossip.networks import consensus_at_speeds, run_lossy

D = 3


def swarm_of(
    n: int,
    topology: Topology,
    *,
    steps: int,
    dtype: Any = np.float64,
    has_slow_disks: bool = False,
    codec: Any = None,
    **policy: Any,
) -> VirtualSwarm:
    rng = np.random.default_rng(n)
    models = {f"node-{i}": rng.standard_normal(D).astype(dtype) for i in range(n)}
    planner = Planner(topology, Uniform(), 7)
    return VirtualSwarm(models, planner, PushSumPolicy(steps, **policy), codec=codec, has_slow_disks=has_slow_disks)


def models_of(swarm: VirtualSwarm) -> dict[str, Any]:
    return {node.me.node: node.z for node in swarm.nodes.values()}


@pytest.mark.parametrize("overlap", [0, 2, None])
def test_a_fifth_of_the_messages_lost_changes_no_mass_and_keeps_the_mean(overlap: int | None) -> None:
    swarm = swarm_of(8, Random({"peers": 2}), steps=120, overlap=overlap, dtype=np.float32)
    mean = np.mean([node.z for node in swarm.nodes.values()], axis=0, dtype=np.float64)
    swarm.begin()
    run_lossy(swarm, random.Random(5), loss=0.2)
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.live == 8 * ONE
    assert audit.in_flight == 0
    assert np.abs(swarm.sum_of_models() / 8 - mean).max() < 1e-5
    assert uneven(models_of(swarm)) < 1e-3


def test_in_lock_step_the_order_of_messages_changes_not_one_bit() -> None:
    results = []
    for seed in (1, 2):
        swarm = swarm_of(5, Ring(), steps=20, dtype=np.float32)
        swarm.begin()
        run_lossy(swarm, random.Random(seed), loss=0.0 if seed == 1 else 0.3)
        results.append({name: z.tobytes() for name, z in models_of(swarm).items()})
    assert results[0] == results[1]


def test_a_dead_peer_takes_what_it_has_and_no_more() -> None:
    swarm = swarm_of(8, Random({"peers": 2}), steps=200, overlap=None)
    swarm.begin()
    dead = Incarnation("node-3")
    for _ in range(40):
        tick(swarm)
    swarm.nodes[dead].crash()
    for node in swarm.up:
        node.take(ev.PeerSuspected(dead, 0.0))
    for _ in range(100):
        tick(swarm)
    survivors = sum(node.ledger.live + node.ledger.in_flight for node in swarm.up)
    assert survivors >= 6 * ONE  # a mass sink would have taken nearly all of it
    swarm.evict(dead)
    for _ in range(100):
        tick(swarm)
    swarm.settle()
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.in_flight == 0
    assert audit.lost == 8 * ONE - audit.live
    assert uneven(models_of(swarm)) < 1e-6


def tick(swarm: VirtualSwarm) -> None:
    for _ in range(len(swarm.messages)):
        swarm.deliver()
    for node in swarm.up:
        if node.is_busy:
            node.finish_work()


def test_a_cut_off_node_keeps_its_mass() -> None:
    swarm = swarm_of(4, Complete(), steps=60, overlap=None)
    swarm.begin()
    swarm.messages.clear()
    lonely = next(iter(swarm.nodes.values()))
    for peer in list(lonely.machine.exchange.peers):
        lonely.take(ev.PeerSuspected(peer, 0.0))
    while lonely.is_busy:
        lonely.finish_work()
    assert lonely.machine.exchange.kept + lonely.ledger.in_flight == ONE
    assert lonely.machine.exchange.kept >= ONE // 4  # one batch an edge, and nothing piles up behind it


def test_a_node_that_leaves_hands_over_everything() -> None:
    swarm = swarm_of(5, Exponential(), steps=30, overlap=None)
    total = swarm.sum_of_models()
    swarm.begin()
    leaver = swarm.nodes[Incarnation("node-2")]
    for _ in range(10):
        tick(swarm)
    leaver.take(ev.LeaveAsked(0.0))
    for _ in range(200):
        tick(swarm)
    assert leaver.finished == "left"
    assert leaver.ledger.live == 0
    swarm.settle()
    audit = swarm.audit()
    assert audit.is_exact
    assert audit.lost == 0
    assert audit.live == 5 * ONE
    assert np.abs(swarm.sum_of_models() - total).max() < 1e-12


@pytest.mark.parametrize("overlap", [0, 1])
def test_where_nodes_wait_for_each_other_nobody_waits_for_a_leaver_that_waits_for_a_dead_peer(overlap: int) -> None:
    swarm = swarm_of(4, Complete(), steps=12, overlap=overlap)
    total = swarm.sum_of_models()
    swarm.begin()
    leaver, dead, *others = swarm.nodes.values()
    dead.crash()
    swarm.run()
    for node in swarm.up:
        node.take(ev.PeerSuspected(dead.me, 0.0))
    leaver.take(ev.LeaveAsked(0.0))
    swarm.settle()
    assert [node.machine.step for node in others] == [12, 12]
    assert "covey ca evict node-1" in leaver.executor.waits_for
    assert leaver.ledger.live == 0
    dead.restart()  # it was not dead after all
    swarm.settle()
    assert [node.finished for node in swarm.nodes.values()] == ["left", "completed", "completed", "completed"]
    audit = swarm.audit()
    assert (audit.is_exact, audit.live, audit.lost) == (True, 4 * ONE, 0)
    assert np.abs(swarm.sum_of_models() - total).max() < 1e-12


def test_a_record_that_is_older_than_what_peers_had_is_noticed() -> None:
    swarm = swarm_of(3, Ring(), steps=30, overlap=None)
    swarm.begin()
    node = swarm.nodes[Incarnation("node-1")]
    for _ in range(8):
        tick(swarm)
    old = node.disk.copy()
    for _ in range(8):
        tick(swarm)
    node.crash()
    node.disk = old
    node.restart()
    sent = node.ledger.in_flight
    for peer in swarm.up:
        peer.heartbeat()
    while swarm.messages:
        swarm.deliver()
    assert "older one" in node.finished
    assert node.ledger.in_flight == sent


def test_who_comes_late_without_mass_begins_where_the_others_are() -> None:
    me, peer = Incarnation("late", 2), Incarnation("node-0")
    machine = PushSum(me, PushSumPolicy(20), [peer], minted=0)
    machine.handle(ev.Progressed(peer, 7, 0, 0, 0, False, 0.0))
    assert machine.handle(ev.Begun(0.0))[0] == act.Train(8, 0.0)


def test_who_is_evicted_while_it_publishes_sends_nothing_of_that() -> None:
    swarm = swarm_of(2, Complete(), steps=5, overlap=None)
    swarm.begin()
    node = swarm.nodes[Incarnation("node-0")]
    while node.machine.phase != "publishing":
        node.finish_work()
    assert node.machine.exchange.published
    node.take(ev.PeerEvicted(node.me, 0.0))
    assert node.machine.unacknowledged() == []
    node.heartbeat()


def test_what_comes_back_from_two_peers_of_one_step_is_mixed_in_twice() -> None:
    me, bob, cyd = map(Incarnation, ("ada", "bob", "cyd"))
    machine = PushSum(me, PushSumPolicy(20, None), [bob, cyd], is_met=True)
    machine.handle(ev.Begun(0.0))
    machine.handle(ev.Trained(0, 0.0))
    machine.handle(ev.Planned(0, (ev.Share(bob, 1, 3), ev.Share(cyd, 1, 3)), ()))
    machine.handle(ev.Published(0, 0.0))
    machine.handle(ev.PeerEvicted(bob, 0.0))
    for event in (ev.Trained(1, 0.0), ev.Planned(1, (), ()), ev.Published(1, 0.0)):
        actions = machine.handle(event)
    [first] = machine.mixing
    assert any(isinstance(action, act.Mix) for action in actions)
    machine.handle(ev.PeerEvicted(cyd, 0.0))  # the same step, the same units: the same portion once more
    machine.handle(ev.Mixed(1, 0.0))
    assert machine.exchange.pending == [first]


def test_a_joiner_that_is_evicted_before_it_is_known_counts_in_the_bound_of_what_may_come() -> None:
    me, bob, late, gone = Incarnation("ada"), Incarnation("bob"), Incarnation("late", 2), Incarnation("gone")
    machine = PushSum(me, PushSumPolicy(20, None), [bob, gone], is_met=True)
    machine.handle(ev.PeerLeft(gone, 0, 0.0))
    batch = ev.Arrived(bob, 1, 4 * ONE - 1, 0, 0.0)  # all that bob, gone and the joiner had, and this node gave
    assert isinstance(machine.handle(batch)[0], act.Refuse)
    for who in (late, late, gone):  # each notice may come again
        machine.handle(ev.PeerEvicted(who, 0.0))
    assert machine.exchange.ever_minted == 4 * ONE
    assert isinstance(machine.handle(batch)[0], act.Accept)


def test_who_joins_without_mass_asks_one_peer_and_gets_half_of_its_mass_once() -> None:
    giver, other = Incarnation("node-0"), Incarnation("node-1")
    late = Incarnation("late", 2)
    machine = PushSum(giver, PushSumPolicy(20), [other], is_met=True)
    machine.handle(ev.HalfAsked(late, 0.0))  # nobody knows it yet
    machine.handle(ev.PeerJoined(late, 0, 0.0))
    machine.handle(ev.Progressed(late, -1, 0, 0, 0, False, 0.0))
    for asker in (late, other, giver):  # only who joined is given anything
        machine.handle(ev.HalfAsked(asker, 0.0))
    machine.handle(ev.Begun(0.0))
    machine.handle(ev.Trained(0, 0.0))
    publish = machine.handle(ev.Planned(0, (ev.Share(other, 1, 2),), ()))[0]
    assert isinstance(publish, act.Publish)
    assert {batch.peer: batch.units for batch in publish.batches} == {late: ONE // 2, other: ONE // 4}
    assert publish.kept == ONE // 4
    assert machine.exchange.asker() is None


def test_an_incarnation_asks_until_something_came() -> None:
    me, peer, done = Incarnation("late", 2), Incarnation("node-0"), Incarnation("node-1")
    machine = PushSum(me, PushSumPolicy(20), [peer, done], minted=0)
    assert asked_for_half(machine.exchange) is None  # nobody is there
    machine.handle(ev.Progressed(done, 20, 0, 0, 0, True, 0.0))
    assert asked_for_half(machine.exchange) is None  # who is through publishes nothing any more
    machine.handle(ev.Progressed(peer, 7, 0, 0, 0, False, 0.0))
    assert asked_for_half(machine.exchange) == peer
    machine.handle(ev.Begun(0.0))
    assert asked_for_half(machine.exchange) == peer
    machine.handle(ev.Arrived(peer, 1, ONE // 2, 8, 0.0))
    assert asked_for_half(machine.exchange) is None
    minted = PushSum(me, PushSumPolicy(20), [peer], is_met=True)
    assert asked_for_half(minted.exchange) is None


@pytest.mark.parametrize("overlap", [0, 2, None])
@pytest.mark.parametrize("join", ["mint", "split"])
def test_the_mean_moves_by_what_a_joiner_mints_and_not_at_all_where_mass_is_split(
    join: str, overlap: int | None
) -> None:
    swarm = swarm_of(4, Exponential(), steps=40, overlap=overlap)
    swarm.begin()
    for _ in range(25):
        tick(swarm)
    before, mass = swarm.sum_of_models(), 4
    z = np.full_like(swarm.up[0].z, 50.0) if join == "split" else swarm.up[0].z.copy()
    late = Incarnation("late", 2)
    swarm.join(late, z, ONE if join == "mint" else 0)
    swarm.settle()
    assert swarm.audit().is_exact, swarm.audit().findings
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    after = swarm.sum_of_models()
    expected = before + z if join == "mint" else before  # of mass 0 a model counts nothing
    assert np.abs(after - expected).max() < 1e-9
    whole = mass + 1 if join == "mint" else mass
    mean = before / mass
    moved = (z - mean) / whole if join == "mint" else 0.0
    assert np.abs(after / whole - (mean + moved)).max() < 1e-9
    assert swarm.nodes[late].ledger.live > 0


@pytest.mark.parametrize("is_first_contact", [True, False])
@pytest.mark.parametrize("claim", ["applied", "acknowledged", "left"])
def test_a_peer_that_claims_what_it_does_not_prove_is_cut_off_and_ends_nobodys_part(
    claim: str, is_first_contact: bool
) -> None:
    swarm = swarm_of(3, Ring(), steps=30, overlap=None)
    swarm.begin()
    for _ in range(8):
        tick(swarm)
    node, liar = swarm.nodes[Incarnation("node-0")], Incarnation("node-1")
    assert node.machine.exchange.peers[liar].is_trusted
    if is_first_contact:
        node.crash()
        node.restart()
    if claim == "left":
        node.take(ev.PeerLeft(liar, 10**6, 0.0))
    else:
        numbers = {"acknowledged": 0, "applied": 0, claim: 10**6}
        node.take(ev.Progressed(liar, 5, 1, is_finished=False, now=0.0, **numbers))
    assert not node.finished
    assert not node.machine.exchange.peers[liar].is_trusted
    assert "shows no signature" in node.machine.exchange.contradictions[liar]
    for _ in range(8):  # with the third node it goes on
        tick(swarm)
    assert node.machine.exchange.kept + node.ledger.in_flight > 0
    assert node.ledger.live == node.ledger.balance


def rounded(z: Any) -> Any:
    """A codec that loses up to an eighth of each value."""
    return np.round(z * 4) / 4


@pytest.mark.parametrize("topology", [Exponential(), Complete()])
@pytest.mark.parametrize("overlap", [0, 2, None])
def test_what_a_codec_loses_stays_with_the_sender(topology: Topology, overlap: int | None) -> None:
    swarm = swarm_of(8, topology, steps=60, overlap=overlap, codec=rounded)
    total = swarm.sum_of_models()
    swarm.begin()
    run_lossy(swarm, random.Random(3), loss=0.2)
    assert swarm.audit().is_exact
    assert np.abs(swarm.sum_of_models() - total).max() < 1e-11
    assert uneven(models_of(swarm)) < 2 * len(swarm.nodes) / 8  # what is lost of an element, times what is given


def test_at_unequal_speeds_corrected_steps_come_to_the_optimum_of_all() -> None:
    assert consensus_at_speeds(correction="none") > 0.5  # fast nodes count for more
    assert abs(consensus_at_speeds(correction="elapsed")) < 0.1
    assert abs(consensus_at_speeds(correction="asyspa")) < 0.1


@pytest.mark.parametrize("correction", ["elapsed", "asyspa"])
def test_peers_that_are_ahead_when_they_are_first_heard_are_caught_up_with_and_not_overtaken(correction: Any) -> None:
    """One of equal pace, which made two steps alone, hears of peers that made 300 more."""
    me, peer, ahead, steps = Incarnation("me"), Incarnation("peer"), 300, 1000
    machine = PushSum(me, PushSumPolicy(steps, None, correction=correction), (peer,))
    machine.handle(ev.Begun(0.0))
    while machine.phase == "training":
        step, now = machine.step, machine.step + 1.0
        if step >= 2:
            machine.handle(ev.Progressed(peer, min(ahead + step, steps - 1), 0, 0, 0, False, now))
        machine.handle(ev.Trained(step, now))
        machine.handle(ev.Planned(step, (), ()))
        machine.handle(ev.Published(step, now))
    assert machine.step == steps - ahead + 1


def steps_beside(slower: int, overlap: int | None) -> list[int]:
    """How many steps three nodes make in 100 ticks, a training each, beside one that takes so many ticks for each."""
    swarm = swarm_of(4, Exponential(), steps=1000, overlap=overlap, max_in_flight=4)
    swarm.begin()
    *others, slow = swarm.nodes.values()
    for tick in range(1, 101):
        due = {node: node.machine.step + 1 for node in swarm.nodes.values() if node is not slow or tick % slower == 0}
        while at_work := [node for node, step in due.items() if node.is_busy and node.machine.step < step]:
            for node in at_work:
                node.finish_work()
            while swarm.messages:
                swarm.deliver()
    assert swarm.audit().is_exact
    return [node.machine.step for node in others]


def test_only_where_nobody_waits_nodes_go_at_their_own_pace_beside_one_that_is_ten_times_slower() -> None:
    assert steps_beside(10, None) == steps_beside(1, None) == [100, 100, 100]
    assert steps_beside(10, 0) == [10, 10, 10]
    assert max(steps_beside(10, 3)) < 20


def test_who_beats_and_acknowledges_nothing_keeps_nothing_from_others_for_long() -> None:
    me, b, c, d = (Incarnation(name) for name in "abcd")
    node = PushSum(me, PushSumPolicy(1000, None), [b, c, d], is_met=True)
    node.handle(ev.Begun(0.0))

    def gives(to: Incarnation, now: float) -> bool:
        """Whether a step that is to send to one peer does."""
        node.handle(ev.Trained(node.step, now))
        publications = node.handle(ev.Planned(node.step, (ev.Share(to, 1, 16),), ()))
        node.handle(ev.Published(node.step, now))
        return any(isinstance(action, act.Publish) and bool(action.batches) for action in publications)

    assert (gives(b, 0.0), gives(c, 1.0), gives(d, 2.0), gives(d, 119.0)) == (True, True, False, False)
    assert (gives(d, 120.0), node.exchange.unanswered(120.0)) == (True, [b])
    node.handle(ev.Acknowledged(d, 1))
    assert (gives(d, 121.0), gives(b, 122.0), node.exchange.unanswered(122.0)) == (True, False, [b, c])
    node.handle(ev.Acknowledged(b, 1))
    assert (node.exchange.unanswered(122.0), gives(b, 123.0)) == ([c], True)
    node.handle(ev.Begun(5.0))  # another clock, and peers that are still to be heard
    for peer in (b, c, d):
        node.handle(ev.Progressed(peer, 0, 0, 0, 0, False, 5.0))
    assert (node.exchange.unanswered(124.0), node.exchange.unanswered(125.0)) == ([], [b, c, d])
