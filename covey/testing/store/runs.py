"""Conformance of a store: runs, events and settings."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

import pytest

from covey.errors import Conflict, NotFound, StoreError
from covey.storage.record.contract import EventRecord, Store
from covey.testing.store import records as make


class RunConformance:
    """Runs, events and settings."""

    def test_a_run_comes_back_as_it_was_submitted(self, store: Store) -> None:
        record = make.run_record("run-1", spec='{"name":"Größe \\u0000"}')
        store.add_run(record)
        assert store.run("run-1") == record

    def test_a_run_id_is_taken_once(self, store: Store) -> None:
        store.add_run(make.run_record("run-1"))
        with pytest.raises(Conflict):
            store.add_run(make.run_record("run-1", name="other"))
        assert store.run("run-1").name == "name of run-1"

    def test_a_name_means_the_newest_run_of_that_name(self, store: Store) -> None:
        for index, run in enumerate(("a", "c", "b")):
            store.add_run(make.run_record(run, name="digits", submitted_at=10.0 + index))
        store.add_run(make.run_record("d", name="mnist"))
        assert store.run("mnist").run == "d"
        assert store.run("digits").run == "b"
        assert store.run("a").run == "a"
        with pytest.raises(NotFound):
            store.run("nothing")

    def test_an_id_goes_before_a_name(self, store: Store) -> None:
        store.add_run(make.run_record("a", name="b"))
        store.add_run(make.run_record("b", name="c"))
        assert store.run("b").run == "b"

    def test_runs_come_newest_first_and_by_state(self, store: Store) -> None:
        for index, run in enumerate("abc"):
            store.add_run(make.run_record(run, submitted_at=100.0 + index))
        store.finish_run("b", "stopped", "", 200.0)
        assert [run.run for run in store.runs()] == ["c", "b", "a"]
        assert [run.run for run in store.runs(states=("queued",))] == ["c", "a"]
        assert [run.run for run in store.runs(limit=1)] == ["c"]
        assert store.count_runs(("queued",)) == 2
        assert store.count_runs(("queued", "stopped")) == 3
        assert store.count_runs(("running",)) == store.count_runs(()) == 0

    def test_a_run_that_has_ended_is_deleted_with_what_only_it_needs(self, store: Store) -> None:
        run = make.start_run(store)
        played = make.play_round(store, run, 1)
        files = {digest for update in store.updates(run, 1) for digest in make.files_of(update)}
        files |= make.files_of(played) | make.files_of(store.version(run, 0))
        store.add_event(EventRecord(1.0, "run-submitted", run))
        other = make.start_run(store, "other")
        needed = store.referenced_digests() - files
        with pytest.raises(Conflict, match="stop it first"):
            store.delete_run(run)
        store.finish_run(run, "stopped", "", 2000.0)
        assert set(store.delete_run(run)) == files
        assert store.referenced_digests() == needed
        with pytest.raises(NotFound):
            store.run(run)
        assert (store.rounds(run), store.versions(run), store.steps(run)) == ([], [], [])
        assert [event.kind for event in store.events(run=run)] == ["run-submitted"]
        assert store.run(other).state == "running"
        assert store.check() == []
        with pytest.raises(NotFound):
            store.delete_run(run)

    def test_starting_a_run_is_one_step_and_can_be_repeated(self, store: Store) -> None:
        run = make.start_run(store)
        first = make.version_record(run, 0)
        store.start_run(run, make.NODES, 3, make.LAYOUT, first, 5000.0)
        record = store.run(run)
        assert (record.state, record.started_at, record.layout) == ("running", 1001.0, make.LAYOUT)
        assert (record.roster, record.parts) == (make.NODES, 3)
        assert store.versions(run) == [first]

    def test_a_run_is_started_with_one_version_0(self, store: Store) -> None:
        run = make.start_run(store)
        with pytest.raises(Conflict):
            store.start_run(run, (), 0, make.LAYOUT, make.version_record(run, 0, "other"), 5000.0)
        with pytest.raises(NotFound):
            store.start_run("none", (), 0, make.LAYOUT, make.version_record("none", 0), 5000.0)

    def test_a_run_that_has_ended_is_not_started(self, store: Store) -> None:
        store.add_run(make.run_record("run-1"))
        store.finish_run("run-1", "stopped", "", 1.0)
        with pytest.raises(Conflict, match="stopped"):
            store.start_run("run-1", (), 0, make.LAYOUT, make.version_record("run-1", 0), 2.0)
        assert store.versions("run-1") == []

    def test_a_roster_only_grows_and_parts_are_fixed_once(self, store: Store) -> None:
        run = make.start_run(store, roster=())
        assert store.extend_roster(run, ["bob", "ada"], 2) == ("bob", "ada")
        assert store.extend_roster(run, ["cyd", "ada", "cyd"], 5) == ("bob", "ada", "cyd")
        record = store.run(run)
        assert (record.roster, record.parts) == (("bob", "ada", "cyd"), 2)

    def test_a_reason_is_kept_once_the_run_has_ended(self, store: Store) -> None:
        run = make.start_run(store)
        store.set_reason(run, "waiting for \0 nodes")
        assert store.run(run).reason.startswith("waiting")
        store.finish_run(run, "failed", "no nodes", 7.0)
        store.set_reason(run, "waiting")
        assert store.run(run).reason == "no nodes"

    def test_the_first_end_of_a_run_stays(self, store: Store) -> None:
        run = make.start_run(store)
        store.open_round(make.round_record(run, 1))
        store.finish_run(run, "stopped", "by alice", 7.0)
        store.finish_run(run, "failed", "later", 8.0)
        record = store.run(run)
        assert (record.state, record.reason, record.ended_at) == ("stopped", "by alice", 7.0)
        assert [(r.state, r.reason) for r in store.rounds(run)] == [("failed", "by alice")]
        with pytest.raises(StoreError):
            store.finish_run(run, "running", "", 9.0)

    def test_events_come_newest_first(self, store: Store) -> None:
        events = [
            EventRecord(10.0, "joined", node="ada"),
            EventRecord(5.0, "refused", "run-1", "bob", {"why": {"code": "late"}, "numbers": [1, float("inf")]}),
            EventRecord(20.0, "waiting", "run-1"),
        ]
        for event in events:
            store.add_event(event)
        assert store.events() == events[::-1]
        assert store.events(run="run-1") == [events[2], events[1]]
        assert store.events(node="bob") == [events[1]]
        assert store.events(kind="waiting") == [events[2]]
        assert store.events(run="run-1", kind="joined") == []
        assert store.events(limit=1) == [events[2]]

    def test_settings_are_overwritten(self, store: Store) -> None:
        assert store.setting("paused") is None
        store.set_setting("paused", "true")
        store.set_setting("paused", "")
        assert store.setting("paused") == ""
