from __future__ import annotations

from contextlib import closing

import pytest

from benchmarks import reading
from benchmarks.measuring import large_record
from covey.storage.sql.store import open_store

SMALL = large_record.Size(updates=40, rounds=12, runs=12, nodes=3, events=10)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/covey.db"
    return request.getfixturevalue("postgres_database")


def test_the_large_record_is_sound_and_every_reading_finds_something(url):
    large_record.fill_store(url, SMALL)
    with closing(open_store(url)) as store:
        assert store.check() == []
        assert len(store.runs()) == SMALL.runs
        summary = store.run_summaries([large_record.ASYNC])[large_record.ASYNC]
        assert (summary.version, summary.updates_decided, summary.accepted) == (10, 40, 40)
        assert reading.audit(store, large_record.ASYNC) == SMALL.updates
        found = {name: action() for name, action in reading.readings(store).items()}
        assert found.pop("assignments still open") == []
        assert all(found.values())


def test_a_peak_is_that_of_what_was_done():
    assert reading.peak_mb(lambda: bytearray(80_000_000)) > 60
    assert reading.peak_mb(lambda: None) < 20


def test_a_reading_is_repeated():
    calls = []
    measured = reading.measure("something", lambda: calls.append(1), 3)
    assert len(calls) == 4
    assert 0 <= measured.median_s <= measured.slowest_s
