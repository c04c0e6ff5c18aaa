from __future__ import annotations

import threading

import pytest

from covey.errors import Conflict, StoreError
from covey.testing import store_records as make
from storage.backup import copy_database
from storage.sql import open_store


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
    copy = open_store(f"sqlite:///{path}")
    rounds = copy.rounds(run)
    assert rounds[0].state == "committed"
    assert [r.round for r in rounds] == list(range(1, len(rounds) + 1))
    assert copy.check() == []
    assert copy.acquire_lease("another") == 2
    copy.close()


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
    monkeypatch.setattr("storage.copy._advance_sequences", fail)
    monkeypatch.setattr("storage.backup._sync", fail)
    with pytest.raises(StoreError, match="cannot be used now"):
        copy_database(store, folder)
    assert list(folder.iterdir()) == []
