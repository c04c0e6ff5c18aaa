"""Conformance of a store: which files are kept."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.storage.record.contract import Store, UpdateRecord, VersionRecord
from covey.testing.store import records as make

KEEP: dict[str, Any] = {"versions": 1, "updates": 1, "metric": "accuracy", "goal": "max"}


def kept_versions(store: Store, run: str) -> list[int]:
    """Numbers of the versions whose files are kept."""
    return [version.version for version in store.versions(run) if version.kept]


class RetentionConformance:
    """`prune` and `referenced_digests`."""

    def test_only_the_newest_stay_and_every_record_does(self, store: Store) -> None:
        run = make.start_run(store)
        played = [make.play_round(store, run, number) for number in (1, 2, 3)]
        gone = set(store.prune(run, **KEEP | {"versions": 2}))
        old_updates = [update for number in (1, 2) for update in store.updates(run, number)]
        first = store.version(run, 0)
        assert kept_versions(store, run) == [2, 3]
        let_go: list[UpdateRecord | VersionRecord] = [first, played[0], *old_updates]
        assert gone == {digest for record in let_go for digest in make.files_of(record)}
        assert not any(update.kept for update in old_updates)
        assert all(update.kept for update in store.updates(run, 3))
        assert all(update.statement and update.parts for update in old_updates)
        assert store.version(run, 1) == replace(played[0], kept=False)
        assert not store.referenced_digests() & gone
        assert store.prune(run, **KEEP | {"versions": 2}) == []

    def test_no_payload_is_kept_if_none_is_asked_for(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1)
        store.prune(run, **KEEP | {"updates": 0})
        assert not any(update.kept for update in store.updates(run, 1))

    def test_payloads_of_an_open_round_stay(self, store: Store) -> None:
        run = make.start_run(store)
        make.play_round(store, run, 1)
        store.open_round(make.round_record(run, 2))
        update = make.update_record(run, 2, "ada")
        store.record_update(update)
        store.prune(run, **KEEP | {"updates": 0})
        assert store.updates(run, 2) == [update]
        assert store.referenced_digests() >= make.files_of(update)
        store.finish_run(run, "stopped", "", 1.0)
        assert set(store.prune(run, **KEEP | {"updates": 0})) == make.files_of(update)

    def test_a_rejected_update_keeps_its_payload_as_long_as_the_others(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        update = make.update_record(run, 1, "ada")
        store.record_update(update)
        store.record_outcome(make.outcome_record(run, 1, "ada", "rejected"))
        make.commit(store, run, 1)
        assert store.referenced_digests() >= make.files_of(update)
        assert set(store.prune(run, **KEEP | {"updates": 0})) >= make.files_of(update)

    @pytest.mark.parametrize(("goal", "expected"), [("max", 3), ("min", 4)])
    def test_the_best_stays_of_equals_the_newer(self, store: Store, goal: Literal["max", "min"], expected: int) -> None:
        run = make.start_run(store)
        for number, value in enumerate((0.5, 0.9, 0.9, 0.1, math.nan, math.inf), start=1):
            make.play_round(store, run, number)
            store.record_metrics(run, number, {"accuracy": value, "other": 1.0}, evaluated=True)
        make.play_round(store, run, 7)
        store.prune(run, **KEEP | {"goal": goal})
        assert kept_versions(store, run) == [expected, 7]

    def test_the_nodes_metric_counts_where_there_is_no_other(self, store: Store) -> None:
        run = make.start_run(store)
        for number, value in ((1, 0.9), (2, 0.2), (3, 0.3)):
            make.play_round(store, run, number)
            store.record_metrics(run, number, {"nodes/accuracy": value}, evaluated=False)
        store.record_metrics(run, 1, {"words": "many"}, evaluated=False)
        store.prune(run, **KEEP)
        assert kept_versions(store, run) == [1, 3]

    def test_pinned_versions_stay(self, store: Store) -> None:
        run = make.start_run(store)
        for number in (1, 2, 3):
            make.play_round(store, run, number)
        store.prune(run, **KEEP, pinned=[1])
        assert kept_versions(store, run) == [1, 3]

    def test_a_file_that_another_run_or_round_needs_is_not_given_away(self, store: Store) -> None:
        shared = make.artifact("the same bytes")
        for run in ("run-1", "run-2"):
            store.add_run(make.run_record(run))
            first = replace(make.version_record(run, 0), artifact=shared)
            store.start_run(run, make.NODES, 3, make.LAYOUT, first, 1.0)
            store.add_version(make.version_record(run, 1))
        assert shared.digest not in store.prune("run-1", **KEEP)
        assert shared.digest in store.referenced_digests()
        assert store.prune("run-2", **KEEP) == [shared.digest]
        assert shared.digest not in store.referenced_digests()

    def test_an_unknown_run_has_nothing_to_let_go(self, store: Store) -> None:
        assert store.prune("none", **KEEP) == []
        assert store.referenced_digests() == set()

    def test_every_file_is_either_needed_or_given_away_once(self, store: Store) -> None:
        values = st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6)

        @given(values=values, versions=st.integers(1, 3), updates=st.integers(0, 2))
        @settings(max_examples=15, deadline=None)
        def any_run(values: list[int | None], versions: int, updates: int) -> None:
            _play_and_prune(store, values, versions, updates)

        any_run()


def _play_and_prune(store: Store, values: list[int | None], versions: int, updates: int) -> None:
    run = make.start_run(store, f"run-{uuid.uuid4().hex}")
    given_away: list[str] = []
    for number, value in enumerate(values, start=1):
        make.play_round(store, run, number, ("ada",))
        if value is not None:
            store.record_metrics(run, number, {"accuracy": value}, evaluated=True)
        given_away += store.prune(run, **KEEP | {"versions": versions, "updates": updates})
    records: list[UpdateRecord | VersionRecord] = [*store.versions(run)]
    records += [store.updates(run, number)[0] for number in range(1, len(values) + 1)]
    needed = {digest for record in records if record.kept for digest in make.files_of(record)}
    assert len(given_away) == len(set(given_away))
    assert set(given_away) == {digest for record in records for digest in make.files_of(record)} - needed
    assert needed <= store.referenced_digests()
    assert not store.referenced_digests() & set(given_away)
    rated = [(value, number) for number, value in enumerate(values, start=1) if value is not None]
    newest = {number for number in range(len(values) + 1) if number > len(values) - versions}
    assert set(kept_versions(store, run)) == newest | ({max(rated)[1]} if rated else set())
    kept_rounds = [n for n in range(1, len(values) + 1) if store.updates(run, n)[0].kept]
    assert kept_rounds == list(range(1, len(values) + 1))[len(values) - min(updates, len(values)) :]
