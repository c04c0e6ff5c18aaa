"""A record of an earlier version's schema is not read, and above all not changed, by who only wants to look at it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from covey.client.reading.stored import StoredRecord
from covey.client.replay import replay_run
from covey.coordinator.config import DATABASE, sqlite_url
from covey.errors import NotFound, StoreError
from covey.testing.launch.forks import run_covey
from tests.unit.storage.schema_0002 import REFUSAL, write

READERS = {"inspecting": StoredRecord, "replaying": lambda data_dir: replay_run(data_dir, "sync-completed")}


def contents(data_dir):
    """Schema and rows, as SQL."""
    with closing(sqlite3.connect(data_dir / DATABASE)) as database:
        return list(database.iterdump())


@pytest.fixture
def old(tmp_path):
    write(sqlite_url(tmp_path))
    return tmp_path


@pytest.mark.parametrize("reader", READERS)
def test_it_is_refused_with_what_to_do(old, reader):
    before = contents(old)
    with pytest.raises(StoreError) as refused:
        READERS[reader](old)
    assert str(refused.value) == REFUSAL
    assert contents(old) == before


@pytest.mark.parametrize("command", [("run", "list"), ("store", "check")])
def test_commands_say_so(old, command):
    before = contents(old)
    done = run_covey([*command, "--data-dir", old])
    assert done.returncode != 0
    assert REFUSAL in " ".join(done.stderr.split())
    assert contents(old) == before


def test_replaying_from_a_database_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(NotFound, match="there is no database"):
        replay_run(tmp_path, "run", store_url=f"sqlite:///{tmp_path}/wrong.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_stays_empty(tmp_path):
    (tmp_path / DATABASE).touch()
    with pytest.raises(NotFound, match="the database is empty"):
        replay_run(tmp_path, "run")
    assert contents(tmp_path) == ["BEGIN TRANSACTION;", "COMMIT;"]
