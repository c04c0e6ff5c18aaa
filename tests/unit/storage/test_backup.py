from __future__ import annotations

import threading

import pytest

from covey.errors import Conflict, StoreError, StoreUnavailable
from covey.storage.sql import copy
from covey.storage.sql.backup import copy_database, digests_in
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from tests.databases import execute


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    sqlite = request.param == "sqlite"
    opened = open_store(f"sqlite:///{tmp_path}/covey.db" if sqlite else request.getfixturevalue("postgres_database"))
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "backup"
    made.mkdir()
    return made


def test_a_copy_made_while_rounds_are_written_is_whole(store, folder):
    store.acquire_lease("me")
    run = make.start_run(store)
    begun, enough = threading.Event(), threading.Event()

    def write():
        number = 0
        while not enough.is_set():
            number += 1
            make.play_round(store, run, number)
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        path = copy_database(store, folder)
    finally:
        enough.set()
        writer.join(30)
    assert path == folder / "covey.db"
    copied = open_store(f"sqlite:///{path}")
    rounds = copied.rounds(run)
    assert rounds[0].state == "committed"
    assert [r.round for r in rounds] == list(range(1, len(rounds) + 1))
    assert copied.check() == []
    assert copied.acquire_lease("another") == 2
    copied.close()


def test_nothing_is_overwritten(store, folder):
    (folder / "covey.db").write_text("precious")
    with pytest.raises(Conflict):
        copy_database(store, folder)
    assert (folder / "covey.db").read_text() == "precious"


def test_a_copy_that_cannot_be_written_is_said(store, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        copy_database(store, tmp_path / "missing")


def test_nothing_is_left_beside_the_copy(store, folder):
    store.acquire_lease("me")
    make.play_round(store, make.start_run(store), 1)
    copy_database(store, folder)
    assert [path.name for path in folder.iterdir()] == ["covey.db"]


def test_a_copy_that_fails_in_the_middle_is_taken_away(store, folder, monkeypatch):
    def fail(*_):
        raise StoreError("the database cannot be used now")

    make.start_run(store)
    monkeypatch.setattr("covey.storage.sql.copy._advance_sequences", fail)
    monkeypatch.setattr("covey.storage.sql.backup._sync", fail)
    with pytest.raises(StoreError, match="cannot be used now"):
        copy_database(store, folder)
    assert list(folder.iterdir()) == []


def test_the_copy_tells_its_files_and_stays_as_it_is(store, folder):
    make.play_round(store, make.start_run(store), 1)
    path = copy_database(store, folder)
    before = path.read_bytes()
    assert digests_in(path) == store.referenced_digests() != set()
    assert path.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["covey.db"]
    path.write_text("something else, which is no database")
    with pytest.raises(StoreError, match="cannot be read"):
        digests_in(path)


def test_a_source_that_goes_away_is_not_taken_for_the_target(postgres_database, postgres_url, folder, monkeypatch):
    copy_lease = copy._copy_lease

    def cut(there, here):
        name = there.engine.url.database
        execute(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        copy_lease(there, here)

    monkeypatch.setattr("covey.storage.sql.copy._copy_lease", cut)
    store = open_store(postgres_database)
    try:
        with pytest.raises(StoreUnavailable, match="the record cannot be read for its copy: the database cannot be"):
            copy_database(store, folder)
    finally:
        store.close()
    assert list(folder.iterdir()) == []


def test_a_record_that_is_damaged_is_not_taken_for_the_target(tmp_path, folder):
    store = open_store(f"sqlite:///{tmp_path}/covey.db")
    store.close()
    (tmp_path / "covey.db").write_text("something else, which is no database")
    with pytest.raises(StoreError, match=r"the record cannot be read for its copy: .*covey store check"):
        copy_database(store, folder)
    assert list(folder.iterdir()) == []
