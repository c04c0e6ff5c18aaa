"""Who lets rounds pass without an answer is invited last, and for longer each time."""

from __future__ import annotations

import pytest

from covey.machines.attendance import REST_ROUNDS, Attendance, Missed
from covey.machines.protocol import Verdict

NODES = ["a", "b", "c"]


def test_who_was_late_rests_and_is_asked_again_later():
    attendance = Attendance([(0, "c", "late")])
    assert attendance.willing(NODES, 1, 1) == NODES
    attendance.committed(1, {"a": "accepted", "b": "received", "c": "late"})
    for number in range(2, 2 + REST_ROUNDS):
        assert attendance.willing(NODES, number, 1) == ["a", "b"]
    again = 2 + REST_ROUNDS
    assert attendance.willing(NODES, again, 1) == NODES
    attendance.committed(again, {"a": "accepted", "b": "accepted", "c": "late"})
    assert not attendance.rests("c", again + 2 * REST_ROUNDS + 1)
    assert attendance.rests("c", again + 2 * REST_ROUNDS)


@pytest.mark.parametrize(
    ("verdict", "rests"), [("received", False), ("declined", False), ("rejected", False), ("lost", True)]
)
def test_any_answer_counts_as_one(verdict, rests):
    attendance = Attendance([(0, "c", "late"), (1, "c", "late"), (2, "c", verdict)])
    assert attendance.rests("c", 3) is rests


def test_where_too_few_are_left_those_who_rest_are_asked_the_least_late_first():
    attendance = Attendance([(0, "b", "late"), *((n, node, "late") for n in (1, 2) for node in "bc")])
    assert attendance.willing(NODES, 3, 1) == ["a"]
    assert attendance.willing(NODES, 3, 2) == ["a", "c"]
    assert attendance.willing(NODES, 3, 3) == NODES
    assert attendance.willing(NODES, 3, 9) == NODES
    assert attendance.willing([], 3, 2) == []


def test_a_rest_does_not_double_for_ever():
    attendance = Attendance((number, "c", "late") for number in range(1, 20))
    assert attendance.next("c", 20).rest_rounds == Missed(5, 20).rest_rounds == 8 * REST_ROUNDS


def test_what_the_record_says_gives_the_same_as_having_been_there():
    rounds: list[dict[str, Verdict]] = [
        {"a": "accepted", "b": "late", "c": "lost"},
        {"a": "late", "b": "declined", "c": "late"},
    ]
    there = Attendance()
    for number, answers in enumerate(rounds, 1):
        there.committed(number, answers)
    later = Attendance((n, node, verdict) for n, answers in enumerate(rounds, 1) for node, verdict in answers.items())
    assert vars(there) == vars(later)
