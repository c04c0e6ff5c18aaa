"""What one peer can do to the others with a word about how far it is, and what they believe of mass and silence."""

from collections.abc import Sequence

import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.push_sum.rates import Correction, common

ME, LIAR, BOB, CYD = (Incarnation(name) for name in ("me", "liar", "bob", "cyd"))
STEPS = 50


def said(peer: Incarnation, step: int, sequence: int = 0) -> ev.Progressed:
    return ev.Progressed(peer, step, sequence, 0, 0, False, 0.0)


def trainings(
    correction: Correction,
    lie: int | None = None,
    before: int = 0,
    pace: int = 1,
    fast: Sequence[Incarnation] = (BOB, CYD),
    belied_at: int = 0,
    steps: int = STEPS,
) -> list[float]:
    """What each training of a node counts for, beside two, of whom `fast` have `pace` times its pace, and a liar.

    Args:
        correction: The run's.
        lie: Which step it says that it is at; None: it says nothing.
        before: Before which training of the node.
        pace: As said.
        fast: Likewise.
        belied_at: After which training of the node the liar gives something of a step before the one that it said.
        steps: How many the run has.
    """
    machine = PushSum(ME, PushSumPolicy(steps, None, correction=correction), (LIAR, BOB, CYD), is_met=True)
    if lie is not None and not before:
        machine.handle(said(LIAR, lie))
    actions, scales = machine.handle(ev.Begun(0.0)), []
    while machine.phase == "training":
        scales += [action.scale for action in actions if isinstance(action, act.Train)]
        step, now = machine.step, machine.step + 1.0
        for peer in (BOB, CYD):
            machine.handle(said(peer, min((pace if peer in fast else 1) * (step + 1), steps) - 1))
        if lie is not None and step + 1 == before:
            machine.handle(said(LIAR, lie))
        if step + 1 == belied_at:
            machine.handle(ev.Arrived(LIAR, 1, 1, step, now))
            assert LIAR in machine.exchange.contradictions
        machine.handle(ev.Trained(step, now))
        machine.handle(ev.Planned(step, (), ()))
        actions = machine.handle(ev.Published(step, now))
        actions += machine.handle(ev.Mixed(step, now))  # where there was nothing to mix in it is late, and nothing
    return scales


@pytest.mark.parametrize("correction", ["elapsed", "asyspa"])
@pytest.mark.parametrize("lie", [-1, STEPS + 1, 2**31 - 1])
def test_a_word_about_a_step_that_the_run_does_not_have_changes_no_training(correction: Correction, lie: int) -> None:
    assert trainings(correction) == [1.0] * STEPS
    for before in (0, 1, 10):
        assert trainings(correction, lie, before) == [1.0] * STEPS


@pytest.mark.parametrize("correction", ["elapsed", "asyspa"])
def test_one_node_that_is_faster_than_all_others_is_corrected_for(correction: Correction) -> None:
    assert len(trainings(correction, pace=2)) < STEPS * 0.6
    assert len(trainings(correction, pace=2, fast=(BOB,))) < STEPS * 0.6


@pytest.mark.parametrize("correction", ["none", "elapsed", "asyspa"])
def test_little_mass_and_a_liar_s_pace_together_scale_a_step_by_no_more_than_the_policy_says(
    correction: Correction,
) -> None:
    """And what no step could count for is made up for: x moves as the correction says, whatever w is.

    Beside one that says to be so far ahead all steps are scaled as well.
    """
    policy = PushSumPolicy(STEPS, None, correction=correction, least=1)
    machine = PushSum(ME, policy, (LIAR, BOB, CYD), is_met=True)
    machine.handle(said(LIAR, STEPS // 2))
    actions, scales, moved, due, counted = machine.handle(ev.Begun(0.0)), [], 0.0, 0.0, 0.0
    while machine.phase == "training":
        step, now, exchange = machine.step, float(machine.step), machine.exchange
        due += (machine.rates.counted - counted) * common(exchange.step_counts(step), policy.largest)
        counted = machine.rates.counted
        scales += [action.scale for action in actions if isinstance(action, act.Train)]
        moved += scales[-1] * exchange.kept / exchange.mean
        if step == 5:  # all that was given comes back
            machine.handle(ev.Arrived(CYD, 1, exchange.ledger.out[BOB].sent, step, now))
        machine.handle(ev.Trained(step, now))
        machine.handle(ev.Planned(step, (ev.Share(BOB, 15, 16),) if step == 0 else (), ()))
        machine.handle(said(LIAR, STEPS - 1))
        actions = machine.handle(ev.Published(step, now))
        actions += machine.handle(ev.Mixed(step, now))  # where there was nothing to mix in it is late, and nothing
    assert max(scales) == pytest.approx(policy.largest)
    if correction == "none":
        assert policy.largest == 4.0
    else:
        assert policy.largest == 8.0
        assert moved == pytest.approx(due)
        assert STEPS / 4 < moved < STEPS
        assert STEPS <= machine.rates.counted < STEPS + 8 * 4


def test_a_word_that_was_belied_leaves_nothing_behind_in_how_much_later_steps_count_for() -> None:
    scales = trainings("elapsed", 499, before=10, belied_at=12, steps=500)
    assert sum(scale > 2 for scale in scales) <= 2
    assert [scale for scale in scales if scale < 2] == pytest.approx([1.0] * (len(scales) - 2))
    assert len(scales) > 450  # two steps counted for 24 each, and moved by 8


@pytest.mark.parametrize("correction", ["elapsed", "asyspa"])
@pytest.mark.parametrize("pace", [1, 2])
def test_who_says_that_it_is_slow_makes_steps_smaller_by_a_sixth_among_four_and_not_more_for_a_larger_lie(
    correction: Correction, pace: int
) -> None:
    honest = sum(trainings(correction, pace=pace, steps=200))
    moved = sum(trainings(correction, 0, pace=pace, steps=200))
    assert honest == pytest.approx(200, abs=8)
    assert 0.8 * honest < moved < 0.95 * honest


def test_whose_batches_belie_what_it_said_of_its_steps_counts_for_no_pace() -> None:
    machine = PushSum(ME, PushSumPolicy(STEPS, None, correction="asyspa"), (LIAR, BOB), is_met=True)
    machine.handle(said(BOB, 4))
    machine.handle(said(LIAR, 40))
    assert max(machine.exchange.step_counts(0)) == 41
    machine.handle(ev.Arrived(BOB, 1, 1, 4, 0.0))  # as a leaver gives in the step that it said
    assert machine.handle(ev.Arrived(LIAR, 1, 1, 5, 0.0))[0] == act.Accept(LIAR, 1)  # its mass is as good as any
    words = "liar said that it gives nothing more of steps up to 40, and gave batch 1 of step 5"
    assert machine.exchange.contradictions == {LIAR: words}
    machine.handle(said(LIAR, 45))
    assert max(machine.exchange.step_counts(0)) == 5
    lock_step = PushSum(ME, PushSumPolicy(STEPS), (LIAR, BOB), is_met=True)
    lock_step.handle(said(BOB, STEPS))  # a leaver in lock step, which hands over in whatever step it is
    lock_step.handle(ev.Arrived(BOB, 1, 1, 5, 0.0))
    assert not lock_step.exchange.contradictions


@pytest.mark.parametrize("says_again", [False, True])
@pytest.mark.parametrize("sequence", [1, 2, 2**40])
def test_a_word_binds_whatever_its_number_of_the_newest_batch_says(sequence: int, says_again: bool) -> None:
    """Of all that it gives one batch at most is taken to be on its way while it says where it is."""
    machine = PushSum(ME, PushSumPolicy(STEPS, None, correction="asyspa"), (LIAR, BOB), is_met=True)
    machine.handle(said(BOB, 4))
    machine.handle(said(LIAR, 40, sequence))
    machine.handle(ev.Arrived(LIAR, 1, 1, 1, 0.0))  # it may have been given before
    assert not machine.exchange.contradictions
    if says_again:
        machine.handle(said(LIAR, 41, sequence + 1))
        machine.handle(said(LIAR, 42, sequence + 2))
    machine.handle(ev.Arrived(LIAR, 2, 1, 2, 0.0))
    words = "liar said that it gives nothing more of steps up to 40, and gave batch 2 of step 2"
    assert machine.exchange.contradictions == {LIAR: words}
    assert max(machine.exchange.step_counts(0)) == 5


def test_who_says_where_it_is_while_a_batch_is_on_its_way_is_not_belied_by_it() -> None:
    machine = PushSum(ME, PushSumPolicy(STEPS, None), (BOB, CYD), is_met=True)
    for first, sequence in ((4, 1), (14, 2), (24, 3)):
        for step in range(first + 1, first + 8):
            machine.handle(said(BOB, step, sequence))
        machine.handle(ev.Arrived(BOB, sequence, 1, first, 0.0))
        machine.handle(said(BOB, first + 8, sequence))
    machine.handle(ev.Arrived(BOB, 4, 1, 32, 0.0))  # it leaves, in the step that it said
    assert not machine.exchange.contradictions


def test_with_who_says_a_step_that_the_run_does_not_have_nothing_is_exchanged() -> None:
    machine = PushSum(ME, PushSumPolicy(STEPS, None), (LIAR, BOB), is_met=True)
    machine.handle(said(LIAR, STEPS))  # it has made all
    assert machine.exchange.peers[LIAR].is_trusted
    machine.handle(said(LIAR, STEPS + 1))
    assert not machine.exchange.peers[LIAR].is_trusted
    assert machine.exchange.contradictions == {LIAR: "liar claims to be at step 51; the run has 50"}
    refusal = act.Refuse(BOB, 1, "batch 1 is of step 51; the run has 50")
    assert machine.handle(ev.Arrived(BOB, 1, ONE // 2, STEPS + 1, 0.0))[0] == refusal
    assert machine.exchange.ledger.live == ONE


@pytest.mark.parametrize("lie", [-1, 0, STEPS, 2**31 - 1])
def test_who_joins_begins_where_the_others_are_whatever_one_says(lie: int) -> None:
    machine = PushSum(Incarnation("me", 2), PushSumPolicy(STEPS), (LIAR, BOB, CYD), minted=0)
    for peer, step in ((LIAR, lie), (BOB, 20), (CYD, 20)):
        machine.handle(said(peer, step))
    train = machine.handle(ev.Begun(0.0))[0]
    assert isinstance(train, act.Train)
    assert 21 <= train.step <= 22


def test_what_the_evicted_gave_away_before_may_still_come_and_no_more() -> None:
    machine = PushSum(ME, PushSumPolicy(STEPS, None), (LIAR, BOB), is_met=True)
    machine.handle(ev.PeerEvicted(LIAR, 0.0))
    assert machine.exchange.mean == ONE
    too_much = ev.Arrived(BOB, 1, 3 * ONE + 1, 0, 0.0)
    assert isinstance(machine.handle(too_much)[0], act.Refuse)
    # Bob may have all of the evicted one's, and all that this node had: nobody can know how much died with it.
    assert machine.handle(ev.Arrived(BOB, 1, 3 * ONE, 0, 0.0))[0] == act.Accept(BOB, 1)
