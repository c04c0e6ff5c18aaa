"""Conformance of a store: the order of arrival, decisions and the policy's state of an asynchronous run."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import StepRecord, Store, UpdateRecord, VersionRecord, step_verdict
from covey.testing.store import records as make

THREADS = 8
KEEP: dict[str, Any] = {"versions": 1, "updates": 1, "metric": "accuracy", "goal": "max"}


def start_async_run(store: Store, run: str = "run-1") -> str:
    """A running asynchronous run with version 0; returns its id."""
    store.add_run(make.run_record(run, mode="async"))
    store.start_run(run, make.NODES, 3, make.LAYOUT, make.version_record(run, 0), 1001.0)
    return run


def arrive(store: Store, run: str, number: int, node: str, base: int = 0) -> UpdateRecord:
    """An assignment and its recorded update."""
    store.open_round(make.round_record(run, number, invited=(node,), base_version=base))
    update = make.update_record(run, number, node)
    assert store.record_update(update)
    return update


def decide(
    store: Store,
    run: str,
    number: int,
    judged: Sequence[UpdateRecord],
    version: VersionRecord | None = None,
    **fields: Any,
) -> StepRecord:
    """Record a decision on the last of the updates; the step as it is recorded, but for what is counted."""
    state = fields.setdefault("state", f'{{"after":{number}}}')
    step = StepRecord(
        run=run,
        number=number,
        cause=((judged[-1].round, 1),),
        newest=store.version(run, -1).version,
        version=version.version if version else None,
        roster=len(make.NODES),
        verdicts=tuple(map(step_verdict, judged)),
        decided_at=5000.5,
        state_sha256=make.sha256(state),
        **fields,
    )
    store.commit_step(step, judged, version, bytes_received=7, bytes_sent=8)
    return step


def snapshot(store: Store, run: str) -> tuple[object, ...]:
    """Everything that a decision changes."""
    rounds = store.rounds(run)
    updates = [store.updates(run, assignment.round) for assignment in rounds]
    return rounds, updates, store.versions(run), store.steps(run), store.last_step(run)


class AsyncConformance:
    """From the arrival of an update to the decision on it."""

    def test_updates_arrive_in_the_order_of_their_recording(self, store: Store) -> None:
        run = start_async_run(store)
        assert store.next_arrival(run) is None
        for number, node in enumerate(make.NODES, start=1):
            store.open_round(make.round_record(run, number, invited=(node,), base_version=0))
        updates = {n: make.update_record(run, n, make.NODES[n - 1]) for n in (3, 1, 2)}
        for update in updates.values():
            assert store.record_update(update)
            assert not store.record_update(update)
        assert [assignment.arrival for assignment in store.rounds(run)] == [2, 3, 1]
        assert store.next_arrival(run) == updates[3]
        decide(store, run, 1, [make.accepted(updates[3])])
        assert store.next_arrival(run) == updates[1]

    def test_an_assignment_says_which_part_of_the_data_it_is_for(self, store: Store) -> None:
        run = start_async_run(store)
        for number, part in ((1, None), (2, 0), (3, 1)):
            node = make.NODES[number - 1]
            store.open_round(make.round_record(run, number, invited=(node,), base_version=0, part=part))
        assert store.record_update(make.update_record(run, 2, make.NODES[1]))
        assert [assignment.part for assignment in store.rounds(run)] == [None, 0, 1]
        assert store.round(run, 2).part == 0

    def test_rounds_of_the_other_mode_have_no_arrival(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1)
        assert (store.round(run, 1).arrival, store.round(run, 1).version) == (None, 1)
        assert store.next_arrival(run) is None
        assert [(step.state, step.state_sha256) for step in store.steps(run)] == [("", "")]

    def test_a_decision_records_verdict_state_and_version_at_once(self, store: Store) -> None:
        run = start_async_run(store)
        update = arrive(store, run, 1, "ada")
        version, judged = make.version_record(run, 1), make.accepted(update, 0.25)
        pinned = {"pinned_updates": (1,), "pinned_versions": (0, 1)}
        step = decide(store, run, 1, [judged], version, state='{"é":[1]}', **pinned)
        group = store.round(run, 1)
        assert (group.state, group.version, group.accepted, group.rejected) == ("decided", 1, 1, 0)
        assert (group.committed_at, group.bytes_received, group.bytes_sent) == (step.decided_at, 7, 8)
        assert store.updates(run, 1) == [judged]
        assert store.version(run, -1) == version
        assert store.steps(run) == [replace(step, accepted=1)]
        assert (step.cause, step.newest, step.version, step.roster) == (((1, 1),), 0, 1, 3)
        assert store.last_step(run) == replace(step, accepted=1)
        assert store.referenced_digests() >= make.files_of(version)
        assert store.check() == []

    def test_a_held_update_goes_into_a_later_version(self, store: Store) -> None:
        run = start_async_run(store)
        first = arrive(store, run, 1, "ada")
        held = replace(first, verdict="held", reason="1 of 2", numbers={"staleness": 0.0})
        step = decide(store, run, 1, [held], state="{}", pinned_updates=(1,))
        assert (store.round(run, 1).state, store.round(run, 1).version) == ("decided", None)
        assert store.updates(run, 1) == [held]
        second = arrive(store, run, 2, "bob")
        judged = [make.accepted(first, 0.5), replace(second, verdict="rejected", reason="far")]
        other = decide(store, run, 2, judged, make.version_record(run, 1))
        assert [assignment.version for assignment in store.rounds(run)] == [1, None]
        assert store.updates_of(run, [2, 1, 7]) == judged
        steps = store.steps(run)
        assert steps == [replace(step, state=""), replace(other, accepted=1, rejected=1)]
        assert [(step.number, step.cause, step.version) for step in steps] == [(1, ((1, 1),), None), (2, ((2, 1),), 1)]
        assert [(step.accepted, step.rejected) for step in steps] == [(0, 0), (1, 1)]
        assert [step.state for step in steps] == ["", '{"after":2}']
        assert store.steps(run, after=1) == steps[1:]
        assert store.steps(run, limit=1) == steps[:1]
        assert store.check() == []

    def test_a_decision_can_be_repeated_and_no_other_takes_its_place(self, store: Store) -> None:
        run = start_async_run(store)
        update = arrive(store, run, 1, "ada")
        version = make.version_record(run, 1)
        step = decide(store, run, 1, [make.accepted(update)], version)
        arrive(store, run, 2, "bob")
        before = snapshot(store, run)
        store.commit_step(step, [make.accepted(update)], version)
        assert snapshot(store, run) == before
        others: list[dict[str, Any]] = [{"state_sha256": "0"}, {"cause": ((2, 1),)}, {"number": 3}, {"version": None}]
        for changes in others:
            with pytest.raises(Conflict):
                store.commit_step(replace(step, **changes))
        with pytest.raises(Conflict, match="another version 1"):
            store.commit_step(step, [make.accepted(update)], make.version_record(run, 1, "other"))
        assert snapshot(store, run) == before

    def test_nobody_is_decided_on_before_who_came_first(self, store: Store) -> None:
        run = start_async_run(store)
        first, second = arrive(store, run, 1, "ada"), arrive(store, run, 2, "bob")
        store.open_round(make.round_record(run, 3, invited=("cyd",), base_version=0))
        before = snapshot(store, run)
        with pytest.raises(Conflict, match="round 1"):
            decide(store, run, 1, [make.accepted(second)])
        with pytest.raises(NotFound):
            decide(store, run, 1, [make.accepted(make.update_record(run, 9, "eve"))])
        assert snapshot(store, run) == before
        decide(store, run, 1, [make.accepted(first)])
        decide(store, run, 2, [make.accepted(second)])
        with pytest.raises(Conflict, match="no update"):
            decide(store, run, 3, [make.accepted(make.update_record(run, 3, "cyd"))])

    def test_a_decision_is_all_or_nothing(self, store: Store) -> None:
        run = start_async_run(store)
        update = arrive(store, run, 1, "ada")
        before = snapshot(store, run)
        stranger = make.accepted(make.update_record(run, 1, "bob"))
        with pytest.raises(Conflict, match="bob"):
            decide(store, run, 1, [stranger, make.accepted(update)], make.version_record(run, 1))
        with pytest.raises(Conflict):
            decide(store, run, 1, [make.accepted(update)], make.version_record(run, 0, "other"))
        assert snapshot(store, run) == before
        assert not store.referenced_digests() & make.files_of(make.version_record(run, 1))

    def test_a_round_that_closes_without_an_update_takes_none_any_more(self, store: Store) -> None:
        run = start_async_run(store)
        store.open_round(make.round_record(run, 1, invited=("ada",), base_version=0))
        lost = make.outcome_record(run, 1, "ada", "lost")
        assert store.close_round(lost)
        assert store.close_round(lost)
        group = store.round(run, 1)
        assert (group.state, group.reason) == ("failed", "lost: why")
        assert [update.verdict for update in store.updates(run, 1)] == ["lost"]
        with pytest.raises(Conflict, match="failed"):
            store.record_update(make.update_record(run, 1, "ada"))
        with pytest.raises(NotFound):
            store.close_round(make.outcome_record(run, 2, "ada", "lost"))

    def test_an_update_that_came_first_stays_unless_it_is_discarded(self, store: Store) -> None:
        run = start_async_run(store)
        first, second = arrive(store, run, 1, "ada"), arrive(store, run, 2, "bob")
        for verdict in ("lost", "declined", "rejected"):
            assert not store.close_round(make.outcome_record(run, 1, "ada", verdict))
        assert store.next_arrival(run) == first
        assert store.close_round(make.outcome_record(run, 1, "ada", "rejected", "evicted"), discard=True)
        assert store.updates(run, 1) == [replace(first, verdict="rejected", reason="evicted")]
        assert store.next_arrival(run) == second
        decide(store, run, 1, [make.accepted(second)])
        assert not store.close_round(make.outcome_record(run, 2, "bob", "rejected"), discard=True)
        assert store.round(run, 2).state == "decided"

    def test_a_run_that_has_ended_decides_nothing(self, store: Store) -> None:
        run = start_async_run(store)
        update = arrive(store, run, 1, "ada")
        store.finish_run(run, "completed", "", 9.0)
        assert store.next_arrival(run) is None
        assert store.round(run, 1).reason == "not needed any more: the run is completed"
        with pytest.raises(Conflict, match="failed"):
            decide(store, run, 1, [make.accepted(update)])

    def test_what_is_open_undecided_or_pinned_keeps_its_files(self, store: Store) -> None:
        run = start_async_run(store)
        decided = []
        for number in (1, 2, 3, 4):
            update = arrive(store, run, number, "ada", base=number - 1)
            pinned = {"pinned_updates": (1,), "pinned_versions": (2,)} if number == 4 else {}
            decide(store, run, number, [make.accepted(update)], make.version_record(run, number), **pinned)
            decided.append(update)
        waiting = arrive(store, run, 5, "bob", base=1)
        store.prune(run, **KEEP)
        assert [v.version for v in store.versions(run) if v.kept] == [1, 2, 4]
        kept = store.referenced_digests()
        assert [make.files_of(version) <= kept for version in (*decided, waiting)] == [True, False, False, True, True]
        decide(store, run, 5, [make.accepted(waiting)])
        store.prune(run, **KEEP)
        assert [v.version for v in store.versions(run) if v.kept] == [4]
        kept = store.referenced_digests()
        assert [make.files_of(version) <= kept for version in (*decided, waiting)] == [False, False, False, False, True]

    def test_arrivals_have_no_gap_and_no_twin_whoever_records(self, store: Store) -> None:
        run = start_async_run(store)
        for number in range(1, THREADS + 1):
            store.open_round(make.round_record(run, number, invited=(f"n{number}",), base_version=0))
        together = threading.Barrier(THREADS)

        def send(number: int) -> bool:
            together.wait(30)
            return store.record_update(make.update_record(run, number, f"n{number}"))

        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(send, range(1, THREADS + 1)))
        assert sorted(assignment.arrival or 0 for assignment in store.rounds(run)) == list(range(1, THREADS + 1))
