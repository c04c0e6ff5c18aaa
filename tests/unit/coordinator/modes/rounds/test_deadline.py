"""Until when an open round waits: from its beginning, longer for those that are at it, and never for ever."""

from __future__ import annotations

import pytest

from covey.coordinator.modes.rounds.deadline import Deadline
from covey.coordinator.modes.rounds.events import RoundPolicy

POLICY = RoundPolicy(count=1, deadline_s=100, hard_deadline_s=300, progress_s=10)


@pytest.fixture
def deadline():
    """Of an attempt that began at 1000."""
    made = Deadline(POLICY)
    made.begin(1000)
    return made


def test_without_a_sign_of_anybody_it_counts_from_the_beginning(deadline):
    assert deadline.at(["a", "b"]) == deadline.at([]) == 1100
    deadline.begin(1050)
    assert deadline.at(["a"]) == 1150


@pytest.mark.parametrize(("last", "until"), [(1000, 1100), (1089, 1100), (1095, 1105), (1289, 1299), (1295, 1300)])
def test_an_upload_that_makes_progress_extends_it_up_to_the_hard_one(deadline, last, until):
    deadline.progressed("a", last)
    assert deadline.at(["a", "b"]) == until


def test_progress_that_is_told_of_late_takes_nothing_back(deadline):
    deadline.progressed("a", 1120)
    deadline.progressed("a", 1100)
    assert deadline.at(["a"]) == 1130


@pytest.mark.parametrize(("said", "until"), [(1000, 1100), (1060, 1160), (1199, 1299), (1250, 1300)])
def test_who_works_for_another_run_first_has_its_whole_time_afterwards(deadline, said, until):
    deadline.queued("a", 1001)
    deadline.queued("a", said)
    assert deadline.at(["a", "b"]) == until


def test_only_those_that_have_not_answered_extend_it_and_the_slowest_of_them_decides(deadline):
    deadline.progressed("a", 1150)
    deadline.queued("b", 1020)
    deadline.queued("c", 1080)
    assert deadline.at(["a", "b", "c"]) == 1180
    assert deadline.at(["a", "b"]) == 1160
    assert deadline.at(["b"]) == 1120
    assert deadline.at(["d"]) == 1100


def test_another_attempt_knows_what_nodes_did_and_another_round_does_not(deadline):
    deadline.progressed("a", 1150)
    deadline.queued("b", 1180)
    deadline.begin(1050)
    assert (deadline.at(["a"]), deadline.at(["b"])) == (1160, 1280)
    deadline.forget()
    assert deadline.at(["a", "b"]) == 1150


def test_the_hard_one_counts_from_the_beginning_even_where_it_is_the_shorter_one():
    deadline = Deadline(RoundPolicy(count=1, deadline_s=100, hard_deadline_s=40))
    deadline.begin(7)
    assert deadline.at(["a"]) == 47
