"""What all steps are scaled by where nodes are slow, from how many each made; who counts in it, and who does not."""

import random
from typing import Any

import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.push_sum.rates import Rates, common

STEPS = 1000
ME, PEERS = Incarnation("me"), [Incarnation(f"peer-{k}") for k in range(3)]


def test_speeds_within_four_to_one_scale_nothing() -> None:
    dice = random.Random(1)
    for _ in range(200):
        speeds = [dice.uniform(1, 4) for _ in range(dice.randint(1, 12))]
        for time in (1, 2, 3, 10, 1000):
            assert common([int(speed * time) for speed in speeds], 8.0) == 1.0


def test_one_slow_node_among_many_scales_nothing_however_slow_it_is_or_says_it_is() -> None:
    """Fast ones give it their mass, so its steps can count for much."""
    for count in (0, 1, 10, 62):
        assert common([1000, count, 1000, 1000, 1000], 8.0) == 1.0
        assert common([1000, count, *[900] * 6], 8.0) == 1.0


def test_what_nodes_need_on_average_scales_all_alike_and_by_no_less_than_a_quarter() -> None:
    counts = [12_000, 1000, 1000, 1000, 1000, 2000, 3000, 6000]
    assert common(counts, 8.0) == pytest.approx(4 * 8 / (4 * 12 + 6 + 4 + 2 + 1), rel=0.01)
    assert common(counts[::-1], 8.0) == common(counts, 8.0)
    assert common([16_000, 1000, 1000], 8.0) == pytest.approx(4 / 11, rel=0.01)
    assert common([2**31, *[1] * 20], 8.0) == pytest.approx(0.25, rel=0.2)
    assert common([2**31, *[1] * 2000], 8.0) > 0.25


def test_who_made_no_step_yet_does_not_count() -> None:
    assert common([0], 8.0) == common([0, 0, 0], 8.0) == 1.0
    assert common([0, 0, 0, 900], 8.0) == common([900, 0, 0, 0], 8.0) == 1.0


def trained(actions: list[act.Action]) -> list[float]:
    return [action.scale for action in actions if isinstance(action, act.Train)]


def step_of(machine: PushSum, now: float) -> list[float]:
    """The scale of the training after this one."""
    step = machine.step
    machine.handle(ev.Trained(step, now))
    machine.handle(ev.Planned(step, (), ()))
    return trained(machine.handle(ev.Published(step, now)) + machine.handle(ev.Mixed(step, now)))


def said(peer: Incarnation, step: int) -> ev.Progressed:
    return ev.Progressed(peer, step, 0, 0, 0, False, 0.0)


@pytest.mark.parametrize("correction", ["none", "elapsed", "asyspa"])
def test_who_is_away_does_not_count_until_it_is_back_and_catches_up(correction: Any) -> None:
    machine = PushSum(ME, PushSumPolicy(STEPS, None, correction=correction), PEERS, is_met=True)
    machine.handle(ev.Begun(0.0))
    for step in range(300):
        for peer in PEERS:
            if peer == PEERS[0] or step < 20:
                machine.handle(said(peer, step))
        if step == 20:
            for peer in PEERS[1:]:
                machine.handle(ev.PeerSuspected(peer, float(step)))
        assert step_of(machine, step + 1.0) == [1.0]
    for peer in PEERS[1:]:  # what they need is 14 each, and what the two others do 1
        machine.handle(said(peer, 20))
    back = step_of(machine, 301.0)
    machine.handle(said(PEERS[1], 150))
    machine.handle(said(PEERS[2], 150))
    assert step_of(machine, 302.0) == [1.0]
    if correction == "none":
        assert back == [1.0]
    else:
        assert back == [pytest.approx(4 / 7.4, rel=0.03)]


def test_who_joins_counts_as_if_it_had_been_there_from_the_beginning() -> None:
    machine = PushSum(Incarnation("me", 2), PushSumPolicy(STEPS, None, correction="elapsed"), PEERS)
    for peer in PEERS:
        machine.handle(said(peer, 299))
    assert trained(machine.handle(ev.Begun(0.0))) == [1.0]
    assert machine.exchange.step_counts(machine.step) == [300] * 4
    there = PushSum(ME, PushSumPolicy(STEPS, None, correction="elapsed"), [*PEERS, Incarnation("late", 2)], is_met=True)
    for peer in PEERS:
        there.handle(said(peer, 299))
    assert common(there.exchange.step_counts(300), 8.0) == 1.0  # it is there, and begins


def test_steps_count_in_those_of_the_furthest_whatever_all_are_scaled_by() -> None:
    """Two nodes, one of a tenth of the other's pace: both come to their end together."""
    slow, fast = Rates(), Rates()
    moved = {"slow": 0.0, "fast": 0.0}
    for step in range(160):
        moved["fast"] += fast.factor("elapsed", [step, step // 10], float(step), 1.0, 8.0)
        if step % 10 == 0:
            moved["slow"] += slow.factor("elapsed", [step // 10, step], float(step), 1.0, 8.0)
    assert fast.counted == pytest.approx(160)
    assert slow.counted == pytest.approx(160, abs=20)
    assert moved["slow"] == pytest.approx(moved["fast"], rel=0.15)
    assert moved["fast"] < 130
