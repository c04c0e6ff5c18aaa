"""What one who watches a run is told, and what is read for it."""

from __future__ import annotations

import pytest

from covey.coordinator.admin import views
from covey.coordinator.admin.queries import Queries
from covey.coordinator.admin.watched_rounds import WatchedRounds
from covey.storage.record.contract import RoundRecord, RunRecord, StepRecord, UpdateRecord


class Counting:
    """What a watcher reads from, with a count of the rounds that are read."""

    def __init__(self, record):
        self.record, self.read = record, 0

    def rounds(self, *args, **kwargs):
        rounds = self.record.rounds(*args, **kwargs)
        self.read += len(rounds)
        return rounds

    def round(self, *args):
        self.read += 1
        return self.record.round(*args)


@pytest.fixture
def store(recorder):
    return Counting(Queries(recorder.store, lambda record: views.node_view(record, False))._store)


def told(watched, **options):
    return [item.round for page in watched.changes(**options) for item in page]


def test_each_change_is_told_once_and_only_new_rounds_are_read(recorder, store):
    recorder.run("run", rounds=100)
    watched = WatchedRounds(store, "run")
    assert told(watched) == list(range(1, 101))
    assert told(watched) == []
    store.read = 0
    recorder.open("run", 101)
    assert told(watched) == [101]
    recorder.commit("run", 101)
    assert told(watched) == [101]
    assert store.read < 3 * (WatchedRounds.RECENT + 3)


def test_a_round_that_was_evaluated_late_is_told_at_once_if_recent_else_at_the_end(recorder, store):
    recorder.run("run", rounds=100)
    watched = WatchedRounds(store, "run")
    told(watched)
    recorder.store.record_metrics("run", 95, {"accuracy": 0.5}, evaluated=True)
    assert told(watched) == [95]
    recorder.store.record_metrics("run", 10, {"accuracy": 0.25}, evaluated=True)
    assert told(watched) == []
    assert told(watched, last=True) == [10]


def test_a_long_run_comes_in_several_pages(recorder, store):
    recorder.run("run", rounds=WatchedRounds.PAGE + 5)
    pages = list(WatchedRounds(store, "run").changes())
    assert [len(page) for page in pages] == [WatchedRounds.PAGE, 5]


def test_of_a_very_long_run_the_newest_rounds_are_told_and_looked_at_once_more(recorder, store, monkeypatch):
    monkeypatch.setattr(WatchedRounds, "WINDOW", 40)
    recorder.run("run", rounds=100)
    watched = WatchedRounds(store, "run")
    assert told(watched) == list(range(61, 101))
    recorder.store.record_metrics("run", 10, {"accuracy": 0.25}, evaluated=True)
    recorder.store.record_metrics("run", 62, {"accuracy": 0.25}, evaluated=True)
    store.read = 0
    assert told(watched, last=True) == [62]
    assert store.read <= 41
    recorder.open("run", 101)
    for number in range(101, 200):
        recorder.commit("run", number)
        recorder.open("run", number + 1)
        assert told(watched)
    assert len(watched._told) <= 80


def assign(store, number, node):
    store.open_round(RoundRecord("run", number, 1, "collecting", (node,), 0, 300.0, 300.0))


def decide(store, number, decision, verdict):
    update = UpdateRecord("run", number, "ada", "received", digest=f"{number:064x}", statement=b"s")
    store.record_update(update)
    judged = UpdateRecord("run", number, "ada", verdict)
    store.commit_step(StepRecord("run", decision, ((number, 1),), 0, None, 1, (), 400.0, "{}"), [judged])


def test_an_assignment_that_stays_open_or_held_is_still_told_when_it_ends(recorder, store):
    record = recorder.store
    record.add_run(RunRecord("run", "slow", "async", "", 7, "queued", "", 100.0))
    record.start_run("run", ("ada", "bob"), 0, "[]", recorder.version("run", 0), 200.0)
    assign(record, 1, "bob")
    assign(record, 2, "ada")
    decide(record, 2, 1, "held")
    for number in range(3, 120):
        assign(record, number, "ada")
        decide(record, number, number - 1, "rejected")
    watched = WatchedRounds(store, "run")
    assert len(told(watched)) == 119
    store.read = 0
    assign(record, 120, "ada")
    judged = UpdateRecord("run", 2, "ada", "accepted")
    record.record_update(UpdateRecord("run", 120, "ada", "received", digest="ab" * 32, statement=b"s"))
    verdicts = [judged, UpdateRecord("run", 120, "ada", "rejected")]
    record.commit_step(StepRecord("run", 119, ((120, 1),), 0, None, 1, (), 400.0, "{}"), verdicts)
    record.close_round(UpdateRecord("run", 1, "bob", "lost", "away"))
    assert told(watched) == [1, 2, 120]
    assert store.read < WatchedRounds.RECENT + 5
