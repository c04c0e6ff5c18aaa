"""Conformance of a store: the lease, the end, what survives it, and what `check` finds."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from covey.errors import Conflict, StoreError
from covey.storage.record.contract import Store
from covey.testing.store import records as make


class LifeConformance:
    """Lease, closing, and what survives."""

    def test_what_was_recorded_is_there_after_reopening(self, store: Store, opened: Callable[[], Store]) -> None:
        run = make.start_run(store)
        version = make.play_round(store, run, 1)
        updates, rounds = store.updates(run, 1), store.rounds(run)
        store.close()
        again = opened()
        assert again.version(run, -1) == version
        assert (again.updates(run, 1), again.rounds(run)) == (updates, rounds)
        again.close()

    def test_a_closed_store_refuses_and_closing_twice_is_nothing(self, store: Store) -> None:
        store.close()
        store.close()
        with pytest.raises(StoreError):
            store.runs()
        with pytest.raises(StoreError):
            store.set_setting("a", "b")

    def test_there_is_one_coordinator_at_a_time(self, store: Store, opened: Callable[[], Store]) -> None:
        first = store.acquire_lease("host-a:1")
        assert store.acquire_lease("host-a:1") == first
        other = opened()
        with pytest.raises(Conflict, match="host-a:1"):
            other.acquire_lease("host-b:2")
        store.set_setting("a", "still writes")
        store.close()
        assert other.acquire_lease("host-b:2") > first
        other.set_setting("a", "writes too")
        other.close()

    def test_a_sound_record_has_no_contradictions(self, store: Store) -> None:
        run = make.start_run(store)
        for number in (1, 2, 3):
            make.play_round(store, run, number)
        store.prune(run, versions=1, updates=1, metric="accuracy", goal="max")
        make.enrol(store, make.node_record("ada"))
        store.open_round(make.round_record(run, 4))
        assert store.check() == []

    def test_gaps_and_unjudged_updates_are_found(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        store.record_update(make.update_record(run, 1, "ada"))
        make.commit(store, run, 1)
        store.add_version(make.version_record(run, 3))
        store.add_version(replace(make.version_record(run, 4), parent_sha256="0" * 64))
        problems = store.check()
        assert len(problems) == 3
        assert any("ada" in line for line in problems)
        assert any("version 3" in line for line in problems)
        assert any("version 4" in line for line in problems)
