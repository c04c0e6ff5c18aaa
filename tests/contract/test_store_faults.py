"""What each back end of the store does when processes die, connections break and disks fill up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, update

from covey.errors import Conflict, Fenced, NotFound, StoreError, StoreUnavailable
from covey.storage.record.contract import EventRecord
from covey.storage.sql.engine import database_url
from covey.storage.sql.locks import ADVISORY_KEY
from covey.storage.sql.schema import lease
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from tests.databases import execute

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from covey.storage.sql.store import open_store
store = open_store(sys.argv[1])
print(store.acquire_lease("the child"), flush=True)
time.sleep(600)
"""
WRITER = """
import sys
from covey.testing.store import records as make
from covey.storage.sql.store import open_store
store = open_store(sys.argv[1])
store.acquire_lease("the writer")
run = make.start_run(store)
for number in range(1, 10_000):
    make.play_round(store, run, number)
    print(number, flush=True)
"""
CROWD = """
import sys
from covey.storage.sql.store import open_store
store = open_store(sys.argv[1])
store.set_setting(sys.argv[2], "here")
store.close()
"""


@pytest.fixture
def start():
    """Starts Python programs; all of them are gone at the end."""
    children = []

    def begin(program, *arguments):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        children.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/covey.db"
    return request.getfixturevalue("postgres_database")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/covey.db"
    return request.getfixturevalue("empty_postgres")


@pytest.fixture
def store(url):
    opened = open_store(url)
    yield opened
    opened.close()


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)


def test_the_lease_of_a_killed_coordinator_is_free_at_once(start, store, url):
    child = start(HOLDER, url)
    first = int(child.stdout.readline())
    with pytest.raises(Conflict, match="the child"):
        store.acquire_lease("me")
    kill(child)
    assert store.acquire_lease("me") == first + 1
    store.set_setting("a", "b")


def test_a_coordinator_whose_lease_was_taken_stops(store, url):
    store.acquire_lease("me")
    run = make.start_run(store)
    store.open_round(make.round_record(run, 1))
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        connection.execute(update(lease).values(epoch=lease.c.epoch + 1, holder="the other"))
    engine.dispose()
    for write in (
        lambda: store.record_update(make.update_record(run, 1, "ada")),
        lambda: store.begin_aggregation(run, 1),
        lambda: store.add_event(EventRecord(1.0, "a")),
    ):
        with pytest.raises(Fenced, match="the other"):
            write()
    assert store.round(run, 1).state == "collecting"
    assert store.updates(run, 1) == []


def test_what_a_killed_writer_had_been_told_is_there(start, url):
    child = start(WRITER, url)
    wanted = random.Random(7).randint(5, 30)
    told = [int(child.stdout.readline()) for _ in range(wanted)]
    kill(child)
    told += [int(line) for line in child.stdout]
    store = open_store(url)
    committed = [record.round for record in store.rounds("run-1") if record.state == "committed"]
    assert committed[: len(told)] == told
    assert [version.version for version in store.versions("run-1")] == [0, *committed]
    for number in told:
        assert [update.verdict for update in store.updates("run-1", number)] == ["accepted"] * 3
    assert store.check() == []
    assert store.acquire_lease("the next") > 1
    store.close()


def test_processes_that_open_a_new_database_at_once_all_can(start, empty_url):
    children = [start(CROWD, empty_url, index) for index in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    store = open_store(empty_url)
    assert [store.setting(str(index)) for index in range(3)] == ["here"] * 3
    store.close()


def test_a_program_without_the_lease_reads_and_writes_beside_it(store, url):
    store.acquire_lease("me")
    other = open_store(url)
    other.set_setting("paused", "true")
    assert store.setting("paused") == "true"
    other.close()


# -- SQLite --------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/covey.db")
    yield opened
    opened.close()


def test_a_full_disk_is_said_and_changes_nothing(sqlite):
    run = make.start_run(sqlite)
    sqlite.open_round(make.round_record(run, 1))
    with sqlite.database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = make.update_record(run, 1, "ada", statement=bytes(1_000_000))
    with pytest.raises(StoreError, match="full") as caught:
        sqlite.record_update(big)
    assert not isinstance(caught.value, StoreUnavailable)
    assert sqlite.updates(run, 1) == []
    with sqlite.database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {2**30}")
    assert sqlite.record_update(big)


def test_sqlite_is_durable_and_checks_references(sqlite):
    for access in (sqlite.database.reading, sqlite.database.writing):
        with access() as connection:
            pragmas = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert pragmas == ["wal", 2, 1]


def test_a_database_that_is_locked_for_long_is_unavailable_and_then_back(sqlite, tmp_path):
    sqlite.set_setting("a", "1")
    engine = create_engine(f"sqlite:///{tmp_path}/covey.db")
    with sqlite.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            sqlite.set_setting("a", "2")
        other.rollback()
    engine.dispose()
    sqlite.set_setting("a", "3")
    assert sqlite.setting("a") == "3"


def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "covey.db").write_bytes(b"something else" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{tmp_path}/covey.db")
    with pytest.raises(StoreError, match="unable to open"):
        open_store(f"sqlite:///{tmp_path}/missing/covey.db")


# -- PostgreSQL ----------------------------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_database):
    opened = open_store(postgres_database)
    yield opened
    opened.close()


END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def holds_lock(url):
    engine = create_engine(database_url(url))
    with engine.connect() as connection:
        free = connection.execute(select(func.pg_try_advisory_lock(ADVISORY_KEY))).scalar()
    engine.dispose()
    return not free


def test_broken_connections_are_replaced_and_the_lease_is_taken_again(postgres, postgres_database):
    epoch = postgres.acquire_lease("me")
    postgres.set_setting("a", "1")
    assert postgres.setting("a") == "1"
    execute(postgres_database, END_OTHERS)
    assert not holds_lock(postgres_database)
    assert postgres.setting("a") == "1"
    postgres.set_setting("a", "2")
    assert postgres.setting("a") == "2"
    assert holds_lock(postgres_database)
    assert postgres.acquire_lease("me") == epoch


def test_a_connection_that_breaks_inside_a_transaction_leaves_nothing(postgres, postgres_database):
    postgres.acquire_lease("me")
    run = make.start_run(postgres)
    database = postgres.database

    def write():
        with database.writing() as connection:
            connection.execute(update(lease).values(holder="half done"))
            execute(postgres_database, END_OTHERS)
            connection.execute(update(lease).values(holder="never"))

    with pytest.raises(StoreUnavailable):
        write()
    postgres.open_round(make.round_record(run, 1))
    with database.reading() as connection:
        assert connection.execute(select(lease.c.holder)).scalar() == "me"


def test_who_took_the_lease_while_the_connection_was_broken_keeps_it(postgres, postgres_database):
    first = postgres.acquire_lease("me")
    execute(postgres_database, END_OTHERS)
    other = open_store(postgres_database)
    assert other.acquire_lease("the other") == first + 1
    with pytest.raises(Fenced, match="the other"):
        postgres.set_setting("a", "mine")
    other.set_setting("a", "theirs")
    other.close()
    with pytest.raises(Fenced, match="the other"):
        postgres.set_setting("a", "mine")
    assert postgres.setting("a") == "theirs"


def test_a_lock_that_the_server_still_holds_for_a_lost_connection_is_waited_for(postgres, postgres_database):
    postgres.acquire_lease("me")
    execute(postgres_database, END_OTHERS)
    engine = create_engine(database_url(postgres_database))
    with engine.connect() as ghost:
        ghost.execute(select(func.pg_advisory_lock(ADVISORY_KEY)))
        with pytest.raises(StoreUnavailable, match="try again"):
            postgres.set_setting("a", "1")
    engine.dispose()
    postgres.set_setting("a", "2")
    assert postgres.setting("a") == "2"


def test_a_restart_of_the_server_is_survived(postgres, postgres_database, postgres_server):
    epoch = postgres.acquire_lease("me")
    run = make.start_run(postgres)
    postgres_server.stop()
    try:
        with pytest.raises(StoreUnavailable):
            postgres.open_round(make.round_record(run, 1))
        with pytest.raises(StoreUnavailable):
            postgres.run(run)
        with pytest.raises(StoreUnavailable):
            open_store(postgres_database)
    finally:
        postgres_server.ensure_postgres_running()
    postgres.open_round(make.round_record(run, 1))
    assert postgres.round(run, 1).state == "collecting"
    assert postgres.acquire_lease("me") == epoch
    assert holds_lock(postgres_database)


def test_commits_are_durable_even_where_the_server_says_otherwise(postgres_database):
    name = database_url(postgres_database).database
    execute(postgres_database, f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = open_store(postgres_database)
    for access in (store.database.reading, store.database.writing):
        with access() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    store.close()


def test_a_database_that_is_not_there_is_said(postgres_server):
    with pytest.raises(StoreError, match="nowhere"):
        open_store(postgres_server.get_uri(database="nowhere"))


def test_reading_an_unknown_run_leaves_no_connection_behind(postgres):
    for _ in range(50):
        with pytest.raises(NotFound):
            postgres.run("none")
    assert postgres.database.engine.pool.checkedout() == 0
