"""The conformance suite's tests of rounds with several phases."""

# ruff: noqa: D102 (a test's name says what it checks)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import StepRecord, Store, UpdateRecord, step_verdict
from covey.testing.store import records as make


def collected(store: Store) -> str:
    """A run whose first round has the updates of phase 1, and is being looked at; its id."""
    run = make.start_run(store)
    store.open_round(make.round_record(run, 1))
    for node in make.NODES:
        store.record_update(make.update_record(run, 1, node))
    store.begin_aggregation(run, 1)
    return run


def open_phase(
    store: Store,
    run: str,
    params: Mapping[str, str],
    rejected: Sequence[UpdateRecord] = (),
    *,
    closed: int = 1,
    phase: int = 2,
    **changes: Any,
) -> StepRecord:
    """Open a further phase of round 1; the step as it is recorded, but for what is counted."""
    last = store.last_step(run)
    step = StepRecord(
        run,
        last.number + 1 if last else 1,
        cause=((1, closed),),
        newest=0,
        version=None,
        roster=len(make.NODES),
        verdicts=tuple(map(step_verdict, rejected)),
        decided_at=5000.0,
        opens=tuple({"phase": phase, "node": node, "params": text} for node, text in params.items()),
    )
    step = replace(step, **changes)
    store.commit_step(step, rejected)
    return step


class PhasesConformance:
    """Further phases."""

    def test_a_phase_is_a_step_without_a_version(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": '{"a":1}'})
        shown = store.round(run, 1)
        assert (shown.state, shown.phase, shown.attempt_at) == ("collecting", 2, 5000.0)
        step = store.last_step(run)
        assert step is not None
        assert (step.number, step.cause, step.version, step.newest) == (1, ((1, 1),), None, 0)
        assert step.opens == ({"phase": 2, "node": "bob", "params": '{"a":1}'},)
        assert (step.roster, step.accepted, step.rejected) == (len(make.NODES), 0, 0)
        assert store.check() == []

    def test_steps_are_one_sequence(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": ""})
        later = make.update_record(run, 1, "bob", "later", phase=2)
        store.record_update(later)
        answers = store.updates(run, 1)
        assert [(a.node, a.phase) for a in answers] == [("ada", 1), ("bob", 1), ("bob", 2), ("cyd", 1)]
        make.commit(store, run, 1, [make.accepted(answer) for answer in answers])
        make.play_round(store, run, 2)
        assert [(step.number, step.version) for step in store.steps(run)] == [(1, None), (2, 1), (3, 2)]
        assert store.steps(run)[1].cause == ((1, 2),)
        assert store.steps(run)[1].accepted == len(answers)
        assert {answer.verdict for answer in store.updates(run, 1)} == {"accepted"}
        assert store.round(run, 1).accepted == len({answer.node for answer in answers})  # once, not once a phase
        assert [contribution.accepted for contribution in store.contributions(run, make.NODES)] == [2] * len(make.NODES)
        assert store.check() == []

    def test_the_same_opening_again_changes_nothing_and_another_is_refused(self, store: Store) -> None:
        run = collected(store)
        step = open_phase(store, run, {"bob": ""})
        store.commit_step(step)
        assert store.steps(run) == [step]
        with pytest.raises(Conflict, match="another step 1"):
            open_phase(store, run, {"ada": ""}, number=1)
        with pytest.raises(Conflict, match="is collecting"):
            open_phase(store, run, {"ada": ""})
        with pytest.raises(NotFound):
            open_phase(store, run, {"ada": ""}, cause=((7, 1),))
        assert store.steps(run) == [step]

    def test_the_same_phase_may_be_opened_for_others(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": ""})
        store.begin_aggregation(run, 1)
        open_phase(store, run, {"ada": ""}, closed=2)
        assert [step.number for step in store.steps(run)] == [1, 2]
        assert store.round(run, 1).phase == 2

    def test_an_answer_of_another_phase_is_refused(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": ""})
        with pytest.raises(Conflict, match="in phase 2"):
            store.record_update(make.update_record(run, 1, "eve"))
        with pytest.raises(Conflict, match="in phase 2"):
            store.record_update(make.update_record(run, 1, "bob", "third", phase=3))

    def test_rejected_updates_keep_their_reason(self, store: Store) -> None:
        run = collected(store)
        liar = replace(make.update_record(run, 1, "ada"), verdict="rejected", reason="lied")
        open_phase(store, run, {"bob": ""}, [liar])
        own = next(update for update in store.updates(run, 1) if update.node == "ada")
        assert (own.verdict, own.reason) == ("rejected", "lied")
        step = store.last_step(run)
        assert step is not None
        assert [(verdict["node"], verdict["reason"]) for verdict in step.verdicts] == [("ada", "lied")]

    def test_a_further_attempt_begins_with_phase_1(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": ""})
        store.record_outcome(replace(make.outcome_record(run, 1, "bob", "lost"), phase=2))
        store.begin_aggregation(run, 1)
        store.open_round(make.round_record(run, 1, 2))
        assert store.round(run, 1).phase == 1
        assert {(u.node, u.phase, u.verdict) for u in store.updates(run, 1)} == {
            (node, 1, "received") for node in make.NODES
        }

    def test_a_file_that_is_sent_again_in_a_later_phase_is_kept_once(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, {"bob": ""})
        first = make.update_record(run, 1, "bob")
        assert store.record_update(replace(first, phase=2, digest=make.sha256("again")))
        assert store.referenced_digests() >= make.files_of(first)

    def test_a_page_of_signed_updates_ends_with_a_node_s_last_phase(self, store: Store) -> None:
        run = collected(store)
        open_phase(store, run, dict.fromkeys(make.NODES, ""))
        for node in make.NODES:
            store.record_update(make.update_record(run, 1, node, "later", phase=2))
        rows, after = [], (0, "")
        while page := store.signed_updates(run, after, 1):
            assert len(page) == 2
            rows += page
            after = (page[-1].round, page[-1].node)
        assert [(update.node, update.phase) for update in rows] == [(n, p) for n in sorted(make.NODES) for p in (1, 2)]
