"""Conformance of a store: lists in pages, sums of runs, and readings across rounds."""

# ruff: noqa: D102 (a test's name says what it checks)

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.errors import NotFound
from covey.storage.record.contract import ContributionRecord, EventRecord, RunSummary, Store
from covey.testing.store import records as make
from covey.testing.store.asynchronous import arrive, decide, start_async_run


class ReadingConformance:
    """Pages follow one another without a gap or a twin, and say what the whole list says."""

    def test_runs_come_in_pages_and_by_name(self, store: Store) -> None:
        for index, run in enumerate("abcdef"):
            store.add_run(make.run_record(run, name="odd" if index % 2 else "even", submitted_at=100.0 + index // 2))
        everything = [run.run for run in store.runs()]
        assert everything == ["f", "e", "d", "c", "b", "a"]
        for before, after in ((everything[i], everything[i + 1 : i + 3]) for i in range(6)):
            assert [run.run for run in store.runs(before=before, limit=2)] == after
        assert [run.run for run in store.runs(name="odd")] == ["f", "d", "b"]
        assert [run.run for run in store.runs(name="odd", before="e", limit=1)] == ["d"]
        store.finish_run("d", "stopped", "", 1.0)
        assert [run.run for run in store.runs(states=("queued",), before="e")] == ["c", "b", "a"]
        assert store.runs(name="none") == []
        with pytest.raises(NotFound):
            store.runs(before="nobody")

    def test_rounds_come_in_pages_from_either_end(self, store: Store) -> None:
        run = make.start_run(store)
        for number in range(1, 6):
            make.play_round(store, run, number)
        store.open_round(make.round_record(run, 6))
        everything = store.rounds(run)
        assert [(r.round, r.accepted, r.rejected) for r in everything] == [*((n, 3, 0) for n in range(1, 6)), (6, 0, 0)]
        assert store.rounds(run, limit=2) == everything[:2]
        assert store.rounds(run, after=2, limit=2) == everything[2:4]
        assert store.rounds(run, limit=2, newest=True) == everything[4:]
        assert store.rounds(run, after=5, limit=2, newest=True) == everything[5:]
        assert store.rounds(run, after=6) == []
        assert store.rounds(run, states=("collecting", "aggregating")) == everything[5:]

    def test_what_each_node_contributed_is_counted_a_round_once(self, store: Store) -> None:
        run = make.start_run(store)
        make.enrol(store, make.node_record("bob"))
        make.play_round(store, run, 1)
        store.open_round(make.round_record(run, 2))
        first = make.update_record(run, 2, "ada")
        store.record_update(first)
        store.record_outcome(make.outcome_record(run, 2, "bob", "declined", "no GPU"))
        store.record_outcome(make.outcome_record(run, 2, "cyd", "late", "no update before the deadline"))
        shown = store.round(run, 2)
        assert (shown.received, shown.declined, shown.late, shown.lost) == (1, 1, 1, 0)
        assert shown.bytes_received == first.bytes
        assert shown.last_reason == "cyd late: no update before the deadline"
        assert store.rounds(run)[1] == shown
        assert store.rounds(run)[0].last_reason == ""
        verdicts = [(1, "ada", "accepted"), (1, "bob", "accepted"), (1, "cyd", "accepted")]
        verdicts += [(2, "ada", "received"), (2, "bob", "declined"), (2, "cyd", "late")]
        assert store.verdicts(run, upto=2) == verdicts
        assert store.verdicts(run, after=1, upto=9) == verdicts[3:]
        assert store.verdicts(run, upto=1) == verdicts[:3]
        ada, bob, eve = store.contributions(run, ["ada", "bob", "eve"])
        assert (ada.node, ada.asked, ada.accepted, ada.last_reason) == ("ada", 2, 1, "")
        assert (bob.asked, bob.accepted, bob.declined) == (2, 1, 1)
        assert (bob.last_round, bob.last_verdict, bob.last_reason) == (2, "declined", "no GPU")
        assert eve == ContributionRecord("eve")
        node = store.node("bob")
        assert (node.accepted, node.declined) == (1, 1)
        assert node.last_reason == f"run {run}, round 2: declined: no GPU"
        assert store.nodes() == [node]

    def test_versions_come_in_pages(self, store: Store) -> None:
        run = make.start_run(store)
        for number in (1, 2, 3):
            make.play_round(store, run, number)
        everything = store.versions(run)
        assert store.versions(run, limit=2) == everything[:2]
        assert store.versions(run, after=1, limit=1) == everything[2:3]
        assert store.versions(run, after=3) == []
        store.prune(run, versions=2, updates=1, metric="accuracy", goal="max")
        assert [version.version for version in store.versions(run, kept_only=True)] == [2, 3]
        assert [version.version for version in store.versions(run, after=2, kept_only=True)] == [3]

    def test_signed_updates_come_in_pages_with_key_and_base(self, store: Store) -> None:
        names = ("b", "a-2", "B", "a10", "é", "a_1")
        run = make.start_run(store)
        ada = make.node_record("ada")
        make.enrol(store, ada)
        for number, nodes in ((1, names), (2, ("ada",))):
            store.open_round(make.round_record(run, number))
            for node in nodes:
                key = ada.key_id if node == "ada" else "unknown"
                store.record_update(make.update_record(run, number, node, key_id=key))
            store.record_outcome(make.outcome_record(run, number, "zoe", "declined"))
            make.commit(store, run, number)
        everything = store.signed_updates(run)
        assert [(u.round, u.node) for u in everything] == [*((1, name) for name in sorted(names)), (2, "ada")]
        assert [(u.base_version, u.signing_key) for u in everything] == [(0, b"")] * 6 + [(1, ada.signing_key)]
        plain = [update for number in (1, 2) for update in store.updates(run, number) if update.digest]
        assert [make.without_key(update) for update in everything] == plain
        pages, after = [], (0, "")
        while page := store.signed_updates(run, after, limit=2):
            pages += page
            after = (page[-1].round, page[-1].node)
        assert pages == everything

    def test_events_come_in_pages(self, store: Store) -> None:
        for number in range(5):
            store.add_event(EventRecord(1.0, f"kind-{number}", "run-1", "ada" if number % 2 else "bob"))
        first = store.events(limit=2)
        assert [event.kind for event in first] == ["kind-4", "kind-3"]
        assert [event.kind for event in store.events(before_id=first[-1].id, limit=2)] == ["kind-2", "kind-1"]
        assert [event.kind for event in store.events(before_id=first[-1].id, node="bob")] == ["kind-2", "kind-0"]
        assert store.events(before_id=store.events()[-1].id) == []

    def test_nodes_come_in_pages(self, store: Store) -> None:
        names = ("b", "a-2", "B", "a10")
        for name in names:
            make.enrol(store, make.node_record(name))
        everything = store.nodes()
        assert [node.node for node in everything] == sorted(names)
        assert store.nodes(limit=2) == everything[:2]
        assert store.nodes(after=everything[1].node, limit=5) == everything[2:]

    def test_a_summary_says_what_a_run_has_come_to(self, store: Store) -> None:
        rounds, updates = make.start_run(store, "rounds"), start_async_run(store, "updates")
        for number in (1, 2, 3):
            make.play_round(store, rounds, number)
        store.record_metrics(rounds, 1, {"accuracy": 0.5}, evaluated=True)
        store.record_metrics(rounds, 2, {"nodes/accuracy": 0.75}, evaluated=False)
        store.record_metrics(rounds, 3, {}, evaluated=True)
        first, second = arrive(store, updates, 1, "ada"), arrive(store, updates, 2, "bob")
        decide(store, updates, 1, [replace(first, verdict="held")])
        judged = [make.accepted(first), replace(second, verdict="rejected")]
        decide(store, updates, 2, judged, make.version_record(updates, 1))
        store.add_run(make.run_record("queued"))
        newest = {run: store.version(run, -1).model_sha256 for run in (rounds, updates)}
        assert store.run_summaries([updates, "queued", rounds, "nobody"]) == {
            updates: RunSummary(1, newest[updates], updates_decided=2, accepted=1, rejected=1),
            "queued": RunSummary(),
            rounds: RunSummary(3, newest[rounds], metrics={"nodes/accuracy": 0.75}, accepted=9),
            "nobody": RunSummary(),
        }
        assert store.run_summaries([]) == {}

    def test_each_node_s_newest_verdict_is_known(self, store: Store) -> None:
        run, other = make.start_run(store), make.start_run(store, "other")
        for number, nodes in ((1, ("ada", "bob", "cyd")), (2, ("ada", "bob")), (3, ("ada",))):
            store.open_round(make.round_record(run, number))
            judged = []
            for node in nodes:
                store.record_update(make.update_record(run, number, node))
                judged.append(make.accepted(make.update_record(run, number, node)))
            if number == 2:
                judged[1] = replace(judged[1], verdict="rejected")
            store.record_outcome(make.outcome_record(run, number, "dan", "rejected"))
            make.commit(store, run, number, judged)
        make.play_round(store, other, 1)
        store.open_round(make.round_record(run, 4))
        store.record_update(make.update_record(run, 4, "ada"))
        store.record_outcome(make.outcome_record(run, 4, "ada", "rejected"))
        newest = store.newest_verdicts(run, ["ada", "bob", "cyd", "dan", "eve"])
        assert {node: (u.round, u.verdict) for node, u in newest.items()} == {
            "ada": (3, "accepted"),
            "bob": (2, "rejected"),
            "cyd": (1, "accepted"),
        }
        assert newest["bob"] == store.updates(run, 2)[1]
        assert store.newest_verdicts(run, ["cyd"]).keys() == {"cyd"}
        assert store.newest_verdicts(run, []) == store.newest_verdicts("none", ["ada"]) == {}
