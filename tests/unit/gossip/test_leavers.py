"""Who leaves: what keeps it, what it does without, and what comes back of it by its word and against its signature."""

import numpy as np
import pytest

from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.exchange import Exchange
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.push_sum.reasons import reason_of
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.topologies.regular import Complete
from covey.testing.swarms import VirtualSwarm

ME, BOB, CYD = Incarnation("ada"), Incarnation("bob"), Incarnation("cyd")


@pytest.mark.parametrize(
    ("applied", "signed", "back"),
    [(2, 0, 0), (2, 1, 0), (2, 2, 0), (1, 0, ONE // 8), (1, 1, ONE // 8), (1, 2, 0), (0, 2, 0)],
)
def test_who_left_keeps_what_it_signed_to_have_had(applied: int, signed: int, back: int) -> None:
    exchange = Exchange(ME, (BOB, CYD), ONE, 3 * ONE, is_met=True)
    exchange.give({BOB: ONE // 4}, 0)
    exchange.delivered(BOB, 1)
    exchange.give({BOB: ONE // 8}, 1)
    exchange.left(BOB, applied, signed)
    assert BOB not in exchange.peers
    assert exchange.ledger.live == exchange.ledger.balance == ONE - ONE // 4 - ONE // 8 + back
    assert (exchange.ledger.in_flight, exchange.uncertain) == (0, back)
    assert [portion.units for portion in exchange.pending] == [back] * bool(back)
    claims = exchange.contradictions.get(BOB, "")
    assert ("it signed to have had batch 2" in claims) is (applied < signed)


def said(peer: Incarnation, applied: int = 0) -> ev.Progressed:
    return ev.Progressed(peer, 0, 0, 0, applied, False, 0.0)


class Leaver:
    """A machine that gave half of its mass to Bob, is asked to leave, and knows what others are told and it says."""

    def __init__(self, steps: int = 50, overlap: int | None = None, weighs: Weighs = "mass") -> None:
        policy = PushSumPolicy(steps, overlap, weighs=weighs, least=0)
        self.machine, self.waits_for = PushSum(ME, policy, (BOB, CYD), is_met=True), ""
        share = (ev.Share(BOB, 1, 2),)
        for event in (ev.Begun(0.0), ev.Trained(0, 0.0), ev.Planned(0, share, ()), ev.LeaveAsked(0.0)):
            self.take(event)
        assert self.take(ev.Published(0, 0.0)) == [act.Send(Batch(BOB, 1, self.given, self.given), 0)]

    @property
    def given(self) -> int:
        """To Bob, and not acknowledged."""
        return self.machine.exchange.ledger.out[BOB].waiting

    def take(self, event: ev.Event) -> list[act.Action]:
        """What is to be done, without what is only said."""
        actions = self.machine.handle(event)
        self.waits_for = next((a.reason for a in actions if isinstance(a, act.Report)), self.waits_for)
        return [action for action in actions if not isinstance(action, act.Report | act.Announce)]

    def handed_over(self, action: act.Action) -> list[tuple[Incarnation, int]]:
        """To whom, and how much; it is on record, sent and acknowledged from now on."""
        assert isinstance(action, act.Publish)
        self.take(ev.Published(action.step, 0.0))
        for batch in action.batches:
            self.take(ev.Acknowledged(batch.peer, batch.sequence))
        return [(batch.peer, batch.units) for batch in action.batches]


def test_who_leaves_waits_for_a_peer_that_is_there() -> None:
    leaver = Leaver()
    assert leaver.waits_for == "leaving: waiting until bob has the batch on its way"
    (publish,) = leaver.take(ev.Acknowledged(BOB, 1))
    assert leaver.handed_over(publish) == [(BOB, ONE // 2)]
    assert leaver.machine.end == "left"


@pytest.mark.parametrize("silence", [ev.PeerSuspected(BOB, 0.0), ev.Refused(BOB, 1)])
def test_what_a_silent_peer_may_have_is_all_that_waits_for_it(silence: ev.Event) -> None:
    leaver = Leaver()
    (publish,) = leaver.take(silence)
    assert leaver.machine.exchange.published == {BOB: 0, CYD: 1}  # each with a model of its own
    assert leaver.handed_over(publish) == [(CYD, ONE // 2)]
    assert leaver.waits_for.startswith(
        "leaving: the rest is handed over; waiting until bob, silent or refusing it, has"
    )
    assert "an admin has to evict it: covey ca evict bob (at a coordinator: covey node evict)" in leaver.waits_for
    accept, mix = leaver.take(ev.Arrived(CYD, 1, 7, 0, 0.0))
    assert accept == act.Accept(CYD, 1)
    assert isinstance(mix, act.Mix)  # what still comes is handed over likewise
    (publish,) = leaver.take(ev.Mixed(1, 0.0))
    assert leaver.handed_over(publish) == [(CYD, 7)]
    assert leaver.machine.end == ""
    assert leaver.given == ONE // 2
    leaver.take(said(BOB, 1))  # it had it
    assert (leaver.machine.end, leaver.machine.exchange.uncertain) == ("left", 0)


def test_once_a_silent_peer_is_evicted_what_was_on_its_way_to_it_is_handed_over_too() -> None:
    leaver = Leaver()
    (publish,) = leaver.take(ev.PeerSuspected(BOB, 0.0))
    leaver.handed_over(publish)
    (mix,) = leaver.take(ev.PeerEvicted(BOB, 0.0))
    assert isinstance(mix, act.Mix)
    assert (mix.kept, [portion.units for portion in mix.portions]) == (0, [ONE // 2])
    leaver.take(ev.PeerSuspected(CYD, 0.0))
    leaver.take(ev.Mixed(mix.step, 0.0))
    assert leaver.waits_for == "leaving: waiting for a peer that takes all mass; none shows signs of life"
    (publish,) = leaver.take(said(CYD, 1))
    assert leaver.handed_over(publish) == [(CYD, ONE // 2)]
    assert (leaver.machine.end, leaver.machine.exchange.uncertain) == ("left", ONE // 2)


def test_who_has_nobody_else_says_so_and_in_the_last_step_each_edge_keeps_its_model() -> None:
    leaver = Leaver()
    leaver.take(ev.PeerSuspected(CYD, 0.0))
    assert leaver.take(ev.PeerSuspected(BOB, 0.0)) == []
    begins = "leaving: waiting for a peer that takes all mass; none shows signs of life; waiting until bob, silent"
    assert leaver.waits_for.startswith(begins)
    last = Leaver(steps=1)
    (publish,) = last.take(ev.PeerSuspected(BOB, 0.0))
    assert last.handed_over(publish) == [(CYD, ONE // 2)]  # of a step that the run has just so
    assert last.machine.step == 1


def test_the_command_says_which_life_of_a_node_is_to_be_evicted() -> None:
    exchange = Exchange(ME, (again := Incarnation("bob", 2), CYD), ONE, 3 * ONE, is_met=True)
    exchange.give({again: ONE // 2}, 0)
    exchange.peers[again].is_trusted = False
    reason = reason_of("sharing", exchange, (), 0, is_leaving=True)
    assert "waiting until bob (incarnation 2), silent" in reason
    assert "evict it: covey ca evict bob --incarnation 2 (at" in reason


def test_where_receivers_weigh_nothing_is_handed_over_and_no_silent_peer_is_waited_for() -> None:
    leaver = Leaver(overlap=0, weighs="receiver")
    assert leaver.waits_for == "leaving: waiting until bob has the batch on its way"
    assert leaver.take(ev.PeerSuspected(BOB, 0.0)) == [act.Finish("left")]
    assert leaver.machine.exchange.ledger.in_flight == 1


@pytest.mark.parametrize("overlap", [0, None])
def test_two_who_leave_at_the_same_moment_do_not_give_each_other_all_they_have_for_ever(overlap: int | None) -> None:
    models = {name: np.full(2, float(index)) for index, name in enumerate(("ada", "bob", "cyd"))}
    swarm = VirtualSwarm(models, Planner(Complete(), Uniform(), 7), PushSumPolicy(40, overlap))
    swarm.begin()
    ada, bob, cyd = swarm.nodes.values()
    for node in (ada, bob):
        node.take(ev.LeaveAsked(0.0))
    staying = {"ada", "bob"}
    for second in range(300):  # everything at once, so that what they give each other crosses
        swarm.clock.time = float(second)
        for _ in range(len(swarm.messages)):
            swarm.deliver()
        for node in swarm.up:
            node.finish_work()
            node.heartbeat()
            if node.finished == "left" and node.me.node in staying:
                staying.remove(node.me.node)
                swarm.left(node)
    assert [node.finished for node in (ada, bob, cyd)] == ["left", "left", "completed"]
    assert cyd.ledger.live == 3 * ONE
    assert max(edge.sequence for node in (ada, bob) for edge in node.ledger.out.values()) < 20
