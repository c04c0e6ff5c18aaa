"""Push-sum on a network that loses, doubles, delays and reorders: what is kept, and what it costs.

The thresholds are those of the methods' own figures: mass is compared with ==.
"""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covey.gossip.averaging import Averaging
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.joining import asked_for_half
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.given import Given
from covey.gossip.topologies.random import Random
from covey.gossip.topologies.regular import Complete, Exponential, Ring
from covey.testing.swarms import VirtualSwarm, uneven
from tests.unit.gossip.networks import run_lossy

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


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_one_peer_exponential_averages_exactly_in_log2_n_steps(n: int) -> None:
    swarm = swarm_of(n, Exponential(), steps=(n - 1).bit_length())
    mean = np.mean([node.z for node in swarm.nodes.values()], axis=0)
    swarm.begin()
    swarm.run()
    assert all(node.finished == "completed" and node.ledger.live == ONE for node in swarm.nodes.values())
    assert max(np.abs(node.z - mean).max() for node in swarm.nodes.values()) < 1e-14


def test_an_irregular_directed_graph_comes_to_the_mean_because_the_weight_is_divided_out() -> None:
    edges = [(f"node-{a}", f"node-{b}") for a in range(8) for b in ((a + 1) % 8, (a * a + 3) % 8, 0) if a != b]
    swarm = swarm_of(8, Given({"edges": edges}), steps=50)
    mean = np.mean([node.z for node in swarm.nodes.values()], axis=0)
    swarm.begin()
    swarm.run()
    assert swarm.audit().is_exact
    assert swarm.audit().live == 8 * ONE
    weights = [node.machine.exchange.kept / ONE for node in swarm.nodes.values()]
    assert max(weights) > 2 * min(weights)  # so the models alone, undivided, would be far off
    assert max(np.abs(node.z - mean).max() for node in swarm.nodes.values()) < 1e-9


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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(2, 5),
    overlap=st.sampled_from([0, 1, 3, None]),
    topology=st.sampled_from([Exponential(), Ring(), Complete(), Random()]),
    slow=st.booleans(),
    every=st.sampled_from([0, 0, 1, 3]),
    codec=st.sampled_from([None, rounded]),
)
def test_whatever_happens_no_mass_is_made_or_lost(
    seed: int, n: int, overlap: int | None, topology: Topology, slow: bool, every: int, codec: Any
) -> None:
    rng = random.Random(seed)
    averaging = Averaging(every if overlap == 0 else 0, 2)
    swarm = swarm_of(n, topology, steps=12, overlap=overlap, has_slow_disks=slow, codec=codec, averaging=averaging)
    total = swarm.sum_of_models()
    swarm.begin()
    can_die, evicted, joined = rng.random() < 0.3, False, 0
    for _ in range(rng.randrange(20, 250)):
        match rng.choices(
            ["deliver", "drop", "double", "work", "crash", "restart", "suspect", "beat", "evict", "join", "leave"],
            [40, 6, 6, 40, 2, 6, 3, 5, 0.3 if can_die else 0, 0.3, 0.2],
        )[0]:
            case "deliver" if swarm.messages:
                swarm.deliver(rng.randrange(len(swarm.messages)))
            case "drop" if swarm.messages:
                swarm.messages.pop(rng.randrange(len(swarm.messages)))
            case "double" if swarm.messages:
                swarm.deliver(rng.randrange(len(swarm.messages)), keep=True)
            case "work":
                if busy := [node for node in swarm.up if node.is_busy]:
                    rng.choice(busy).finish_work()
            case "crash" if swarm.up:
                rng.choice(swarm.up).crash()
            case "restart":
                if down := [node for node in swarm.nodes.values() if not node.is_up]:
                    rng.choice(down).restart()
            case "suspect" if swarm.up:
                node = rng.choice(swarm.up)
                node.take(ev.PeerSuspected(rng.choice(list(node.machine.exchange.peers) or [node.me]), 0.0))
            case "beat" if swarm.up:
                rng.choice(swarm.up).heartbeat()
            case "evict" if len(swarm.nodes) > 2:
                swarm.evict(rng.choice(list(swarm.nodes)))
                evicted = True
            case "join" if joined < 2 and swarm.up:
                joined += 1
                number = rng.choice([1, 2])  # one that joins mints, or asks for half
                swarm.join(Incarnation(f"late-{joined}", number), rng.choice(swarm.up).z, ONE if number == 1 else 0)
            case "leave" if len(swarm.up) > 2:
                rng.choice(swarm.up).take(ev.LeaveAsked(0.0))
        for node in swarm.up:
            assert node.ledger.live == node.ledger.balance
            assert node.machine.exchange.kept >= 0
    for node in swarm.nodes.values():
        if not node.is_up:
            node.restart()
    swarm.settle()
    audit = swarm.audit()
    assert audit.is_exact, audit.findings
    assert audit.in_flight == 0
    assert all(node.finished in ("completed", "left") for node in swarm.nodes.values()), [
        (node.me, node.machine.phase, node.machine.step) for node in swarm.nodes.values()
    ]
    if not evicted and not joined:
        assert audit.live == n * ONE
        assert audit.lost == 0
        assert np.abs(swarm.sum_of_models() - total).max() < 1e-9


SPEEDS = {"node-0": 1, "node-1": 1, "node-2": 4, "node-3": 4}
OPTIMA = {"node-0": -1.0, "node-1": -1.0, "node-2": 1.0, "node-3": 1.0}


def consensus_at_speeds(correction: Any) -> float:
    """What four nodes come to, of which two are four times as fast; the optimum of all is 0, by speed it is 0.6."""

    def training(node: str, step: int, z: Any, scale: float) -> Any:
        return z - 0.015 * scale * (z - OPTIMA[node])

    models: dict[str, Any] = {name: np.zeros(1) for name in OPTIMA}
    planner, policy = Planner(Random({"peers": 1}), Uniform(), 7), PushSumPolicy(10_000, None, correction=correction)
    swarm = VirtualSwarm(models, planner, policy, training)
    swarm.begin()
    reached = []
    for tick in range(600):
        swarm.clock.time = float(tick)
        while swarm.messages:
            swarm.deliver()
        for name, node in zip(SPEEDS, swarm.nodes.values(), strict=True):
            if tick % (4 // SPEEDS[name]) == 0:
                for _ in range(3):  # a training, its publication, and the mixture
                    node.finish_work()
        reached.append(swarm.sum_of_models()[0] / len(SPEEDS))
    assert swarm.audit().is_exact
    return float(np.mean(reached[450:]))


def test_at_unequal_speeds_corrected_steps_come_to_the_optimum_of_all() -> None:
    assert consensus_at_speeds("none") > 0.5  # fast nodes count for more
    assert abs(consensus_at_speeds("elapsed")) < 0.15
    assert abs(consensus_at_speeds("asyspa")) < 0.15


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
