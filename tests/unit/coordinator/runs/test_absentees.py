"""Which nodes took part in no round of a run: said from what is on record."""

from __future__ import annotations

import pytest

from covey.coordinator.runs.steps.absentees import left_out
from covey.testing.store import records as make

DAMAGED = "its parts are not those of the layout"


@pytest.fixture
def record(world):
    """The store, with a run of `ada`, `bob` and `cyd`."""
    make.start_run(world.record)
    return world.record


def play(record, number, accepted=("ada",), refused=(), **verdicts):
    """A round; `refused` sent updates that the rule rejected, `verdicts` are of those that sent none."""
    record.open_round(make.round_record("run-1", number))
    sent = [make.update_record("run-1", number, node) for node in (*accepted, *refused)]
    for update in sent:
        record.record_update(update)
    for node, verdict in verdicts.items():
        record.record_outcome(make.outcome_record("run-1", number, node, verdict, f"{verdict} in {number}"))
    judged = [make.accepted(update) for update in sent if update.node in accepted]
    judged += [make.update_record("run-1", number, node, verdict="rejected", reason="an outlier") for node in refused]
    make.commit(record, "run-1", number, judged)


def said(record, roster=make.NODES):
    return left_out(record, "run-1", roster)


async def test_where_all_took_part_nothing_is_said(record):
    assert said(record) == ""  # nobody was asked yet
    play(record, 1, make.NODES)
    assert said(record) == ""
    assert left_out(record, "run-1", ()) == ""


async def test_who_was_never_asked_is_not_missed(record):
    play(record, 1, ("ada", "bob"))
    assert said(record) == ""


async def test_who_never_sent_an_update_is_named_with_why(record):
    play(record, 1, cyd="declined", bob="lost")
    play(record, 2, cyd="declined", bob="late")
    assert said(record, ("ada", "bob")) == (
        "without bob, which took part in no round (1 lost, 1 late; the last one, bob: late in 2)"
    )
    assert said(record).startswith("without bob and cyd, which took part in no round (2 declined, 1 lost, 1 late; ")


async def test_the_reason_is_that_of_who_was_missed_last(record):
    play(record, 1, bob="lost", cyd="declined")
    play(record, 2, bob="lost")
    assert said(record).endswith("; the last one, bob: lost in 2)")


async def test_one_accepted_update_is_taking_part(record):
    play(record, 1, ("ada", "bob"))
    play(record, 2, bob="lost")
    assert said(record) == ""


async def test_an_update_that_the_rule_left_out_was_looked_at(record):
    play(record, 1, refused=("bob",))
    assert said(record) == ""
    play(record, 2, bob="declined")  # it has none in the last round, but its earlier one was looked at
    play(record, 3, refused=("bob",))
    assert said(record) == ""


async def test_an_offer_that_was_refused_was_no_update(record):
    record.open_round(make.round_record("run-1", 1))
    update = make.update_record("run-1", 1, "ada")
    record.record_update(update)
    record.record_outcome(make.outcome_record("run-1", 1, "bob", "rejected", DAMAGED))
    make.commit(record, "run-1", 1, [make.accepted(update)])
    assert said(record) == f"without bob, which took part in no round (1 rejected; the last one, bob: {DAMAGED})"


async def test_one_refused_offer_after_an_accepted_update_makes_nobody_an_absentee(record):
    play(record, 1, ("ada", "bob"))
    play(record, 2, bob="rejected")
    assert said(record) == ""
