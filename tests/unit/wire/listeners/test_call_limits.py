"""How many calls: of one caller, of one kind, and in a second."""

from __future__ import annotations

import pytest

from covey.errors import LimitExceeded
from covey.wire.listeners.buckets import Buckets
from covey.wire.listeners.call_limits import Allowance, Caller, CallLimits

ADA, BOB, BOSS = Caller("node", "ada"), Caller("node", "bob"), Caller("admin", "boss")


def limits(each=2, total=3, begin=(100, 1.0)):
    return CallLimits({"node": Allowance(each, total, begin), "admin": Allowance(1, 1)})


def speaking(made, call, caller):
    made.enter(call, caller, 0.0)
    made.spoke(call)


def test_a_caller_has_so_many_calls_and_another_has_its_own():
    made = limits()
    speaking(made, 1, ADA)
    speaking(made, 2, ADA)
    with pytest.raises(LimitExceeded, match="2 calls are under way"):
        made.enter(3, ADA, 0.0)
    speaking(made, 4, BOB)
    assert [made.under_way(caller) for caller in (ADA, BOB, BOSS)] == [2, 1, 0]
    made.leave(1)
    made.leave(1)
    made.leave(3)
    assert made.under_way(ADA) == 1


def test_one_kind_does_not_take_the_room_of_another():
    made = limits()
    for number, caller in enumerate((ADA, ADA, BOB)):
        speaking(made, number, caller)
    with pytest.raises(LimitExceeded, match="try again in a minute"):
        made.enter(7, BOB, 0.0)
    assert made.enter(8, BOSS, 0.0) is None


def test_a_call_that_has_said_nothing_gives_way_to_a_newer_one_the_oldest_first():
    made = limits()
    assert [made.enter(call, ADA, 0.0) for call in (1, 2, 3, 4)] == [None, None, 1, 2]
    assert made.under_way(ADA) == 2
    made.spoke(3)
    assert made.enter(5, ADA, 0.0) == 4
    assert made.enter(6, BOB, 0.0) is None
    # All places of the kind are taken: one of another caller's that is silent ends.
    assert made.enter(7, BOB, 0.0) == 5
    made.leave(5)  # told of its end late: nothing is counted twice
    assert (made.under_way(ADA), made.under_way(BOB)) == (1, 2)


def test_calls_begin_at_a_bounded_rate():
    made = limits(begin=(2, 1.0))
    for call in (1, 2):
        made.enter(call, ADA, 0.0)
        made.leave(call)
    with pytest.raises(LimitExceeded, match="too many calls a second"):
        made.enter(3, ADA, 0.5)
    assert made.enter(4, BOB, 0.5) is None
    assert made.enter(5, ADA, 1.5) is None


def test_buckets_take_no_endless_memory():
    buckets = Buckets(1, 0.0, most=10)
    assert all(buckets.take(number, 0.0) for number in range(100))
    assert not buckets.take(99, 0.0)
    assert buckets.take(0, 0.0)
