"""What an open round waits for, in words, and how it names what can still bring it on."""

from __future__ import annotations

import pytest

from covey.coordinator.modes.rounds.waiting import (
    awaited,
    away_text,
    failed_text,
    hope_of,
    overdue_text,
    refusals_of,
    short_text,
    stuck_text,
)
from covey.errors import NotReady, PolicyError
from covey.machines.attendance import MISSES, REST_ROUNDS, Missed
from covey.machines.membership import Membership
from covey.machines.protocol import Verdict


def test_only_answers_without_an_update_that_counts_are_refusals():
    answers: dict[str, Verdict] = {
        "a": "received",
        "b": "declined",
        "c": "lost",
        "d": "late",
        "e": "rejected",
        "f": "accepted",
        "g": "held",
    }
    reasons = {"b": "policy: no", "e": "too far", "a": "never asked for"}
    assert refusals_of(answers, reasons) == {
        "b": ("declined", "policy: no"),
        "c": ("lost", "no reason was kept"),
        "d": ("late", "no reason was kept"),
        "e": ("rejected", "too far"),
    }
    assert refusals_of({}, reasons) == {}


FOR_GOOD = {"a": ("declined", f"{PolicyError.code}: no"), "b": ("lost", "no connection")}


@pytest.mark.parametrize(
    ("pending", "received", "refusals", "hope"),
    [
        (["c", "d"], [], FOR_GOOD, "waiting for c and d"),  # who may still answer comes first
        ([], [], FOR_GOOD, "no node that is here can do this work; it goes on when one is started again, or another"),
        ([], ["c"], FOR_GOOD, "waiting for more nodes"),  # somebody can do it
        ([], [], {"a": ("declined", f"{NotReady.code}: later")}, "waiting for more nodes"),
        ([], [], {"b": ("lost", "no connection")}, "waiting for more nodes"),
        ([], [], {}, "waiting for more nodes"),
    ],
)
def test_what_can_bring_a_round_on(pending, received, refusals, hope):
    assert hope_of(pending, received, refusals).startswith(hope)


@pytest.mark.parametrize(
    ("pending", "present", "text"),
    [
        ([], set(), ""),
        (["a", "b"], {"b"}, ""),
        (["a"], {"c"}, "round 3: waiting for a to come back, for up to 30 s without a connection"),
        (["a", "b"], set(), "round 3: waiting for a and b to come back, for up to 30 s without a connection"),
    ],
)
def test_a_round_says_whom_it_waits_for_only_where_none_of_them_is_here(pending, present, text):
    assert awaited(3, pending, present, 30.0) == text


def test_who_was_late_hears_what_follows_from_it_once_something_does():
    plain = "no update before the deadline"
    assert overdue_text(None) == overdue_text(Missed(MISSES - 1, 4)) == plain
    rests = f"{plain}; in the next {REST_ROUNDS} rounds it is asked only where it is needed"
    assert overdue_text(Missed(MISSES, 4)) == rests
    assert f"next {2 * REST_ROUNDS} rounds" in overdue_text(Missed(MISSES + 1, 4))


@pytest.mark.parametrize(
    ("eligible", "present", "text"),
    [
        ([], set(), "round 1 needs 3 nodes; 0 connected"),
        (["a", "b"], {"a", "b", "stranger"}, "round 1 needs 3 nodes; 2 connected"),
        (["a", "b"], {"a"}, "round 1 needs 3 nodes; 1 connected, 1 expected back"),
        (["a", "b", "c"], set(), "round 1 needs 3 nodes; 0 connected, 3 expected back"),
    ],
)
def test_why_a_round_cannot_be_opened_yet(eligible, present, text):
    assert short_text(1, 3, eligible, present) == text
    assert short_text(1, 1, [], present) == "round 1 needs 1 node; 0 connected"


def test_a_run_that_waits_names_those_that_are_not_here_but_nobody_that_was_shut_out():
    members = Membership(("a", "b", "c"))
    members.start(0.0)
    assert away_text(members) == "away: a, b and c"
    members.join("a")
    members.remove("b")
    assert away_text(members) == "away: c"
    members.join("c")
    assert away_text(members) == ""


def test_a_round_that_is_stuck_says_who_refused_why_it_is_short_and_what_it_waits_for():
    refused = refusals_of({"a": "declined"}, {"a": "busy"})
    assert stuck_text(2, "1 of 2 updates", ["b"], ["c"], refused) == (
        "round 2: a declined: busy; 1 of 2 updates; waiting for b"
    )
    assert stuck_text(2, "1 of 2 updates", [], ["c"], {}) == "round 2: 1 of 2 updates; waiting for more nodes"


def test_a_run_that_fails_for_want_of_updates_says_so_and_who_refused():
    assert failed_text(2, 4, "1 of 2 updates", {}) == "round 2: 1 of 2 updates after 4 attempts"
    assert failed_text(2, 1, "0 of 1 update", {}) == "round 2: 0 of 1 update after 1 attempt"
    refused = refusals_of({"a": "lost"}, {"a": "gone"})
    assert failed_text(2, 4, "1 of 2 updates", refused) == "round 2: 1 of 2 updates after 4 attempts; a lost: gone"
