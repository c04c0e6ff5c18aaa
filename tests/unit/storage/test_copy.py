from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import DDL, JSON, Text, cast, create_engine, func, inspect, select, update

from covey.coordinator.keys.sealer import RecordSealer
from covey.errors import Conflict, NotFound, StoreError
from covey.storage.record.contract import EventRecord, GossipMemberRecord, GossipStatementRecord
from covey.storage.sql.copy import copy_store
from covey.storage.sql.engine import database_url
from covey.storage.sql.migrations.migrate import _VERSION
from covey.storage.sql.schema import Base, events, lease, settings
from covey.storage.sql.store import migrate, open_store
from covey.testing.store import records as make
from covey.testing.store.asynchronous import arrive, decide, start_async_run
from covey.wire.identities.signing import SigningKey

TABLES = [table for table in Base.metadata.sorted_tables if table is not lease]
BLOCK = 4
EVENTS = BLOCK + 3


def fill(store):
    """Something in every table, with the values that are hard to keep."""
    run = make.start_run(store, "sync")
    for number in (1, 2, 3):
        make.play_round(store, run, number)
    metrics = {"loss": math.inf, "accuracy": 0.1 + 0.2, "odd": math.nan, "big": 2**70}
    store.record_metrics(run, 3, metrics, evaluated=True)
    store.prune(run, versions=1, updates=1, metric="accuracy", goal="max")
    store.open_round(make.round_record(run, 4))
    store.record_update(make.update_record(run, 4, "ada", weight=5e-324))
    store.set_reason(run, "waits for \0 Größe \U0001f40e")
    other = start_async_run(store, "async")
    first = arrive(store, other, 1, "ada")
    judged, version = [make.accepted(first)], make.version_record(other, 1)
    decide(store, other, 1, judged, version, state='{"held":[1e308]}', pinned_versions=(0,))
    arrive(store, other, 2, "bob")
    for name in ("ada", "bob"):
        make.enrol(store, make.node_record(name))
    store.add_token(make.token_record("cyd", "unused"))
    store.set_gossip_members([GossipMemberRecord(run, "ada", "ada:7410", make.sha256("ada"), "lost", "\u2028")])
    store.add_gossip_statement(GossipStatementRecord(run, "ada", 1, 1, 2, 3, "key", 5.5, b"\0said", b"\xff"), most=9)
    store.set_setting("paused", "true")
    for number in range(EVENTS):
        store.add_event(EventRecord(number / 3, "seen", run, "ada", {"n": [number, -math.inf, None, "\u2028"]}))
    store.seal_with(RecordSealer("fe" * 16, SigningKey.generate()))
    make.play_round(store, make.start_run(store, "sealed"), 1)


@contextmanager
def connected(url):
    engine = create_engine(database_url(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def rows_of(url):
    """Every row, JSON as the text that is stored."""
    with connected(url) as connection:
        return {table.name: sorted(map(repr, connection.execute(_raw(table)))) for table in TABLES}


def _raw(table):
    return select(*(cast(c, Text) if isinstance(c.type, JSON) else c for c in table.c))


def counts(url):
    return {name: len(rows) for name, rows in rows_of(url).items()}


def change(url, statement):
    with connected(url) as connection:
        connection.execute(statement)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("covey.storage.sql.copy.BLOCK_ROWS", BLOCK)


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path}/covey.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request, tmp_path):
    """A full record."""
    url = f"sqlite:///{tmp_path}/source.db" if request.param == "sqlite" else None
    url = url or request.getfixturevalue("postgres_database")
    with closing(open_store(url)) as store:
        assert store.acquire_lease("the coordinator") == 1
        fill(store)
    return url


@pytest.fixture
def target(request, source, tmp_path):
    """An empty database of the other kind."""
    if source.startswith("sqlite"):
        return request.getfixturevalue("empty_postgres")
    return f"sqlite:///{tmp_path}/target.db"


def test_every_row_arrives_as_it_was_and_comes_back_so(source, target, tmp_path):
    before = rows_of(source)
    assert all(before.values()), "the record of this test must have rows in every table"
    assert copy_store(source, target) == {name: len(rows) for name, rows in before.items()}
    again = f"sqlite:///{tmp_path}/again.db"
    copy_store(target, again)
    assert rows_of(target) == before == rows_of(again) == rows_of(source)
    for url in (target, again):
        with closing(open_store(url)) as store:
            assert store.check() == []


def test_the_copy_goes_on_where_the_record_was(source, target):
    copy_store(source, target)
    with closing(open_store(target)) as copied:
        assert copied.acquire_lease("the next coordinator") == 3  # the copy itself was the second holder
        copied.add_event(EventRecord(1e9, "after", "sync"))
        assert [event.kind for event in copied.events(limit=2)] == ["after", "seen"]
        numbers = copied.events()[1].detail["n"]
        assert isinstance(numbers, list)
        assert numbers[1] == -math.inf
        assert copied.run("sync").reason.endswith("Größe \U0001f40e")
        make.commit(copied, "sync", 4, [make.accepted(make.update_record("sync", 4, "ada"))])
        assert copied.check() == []
    with connected(target) as connection:
        assert connection.execute(select(func.max(events.c.id))).scalar_one() > EVENTS


def test_it_says_how_far_it_is(source, target):
    told = []
    copy_store(source, target, lambda *progress: told.append(progress))
    assert [one for one in told if one[0] == "events"] == [("events", BLOCK, EVENTS), ("events", EVENTS, EVENTS)]


@pytest.mark.parametrize("where", ["source", "target"])
def test_a_living_coordinator_keeps_its_database(source, target, where):
    migrate(target)
    with closing(open_store({"source": source, "target": target}[where])) as coordinator:
        coordinator.acquire_lease("host-a:17")
        with pytest.raises(Conflict, match=r"another coordinator \(host-a:17\) runs on this store: stop it first"):
            copy_store(source, target)
        coordinator.set_setting("still", "writes")


def test_nothing_is_added_to_a_record(source, target):
    migrate(target)
    change(target, settings.insert().values(key="paused", value="false"))
    with pytest.raises(Conflict, match="is not empty \\(table settings has rows\\): name an empty database"):
        copy_store(source, target)
    assert sum(counts(target).values()) == 1


def test_a_record_is_not_copied_onto_itself(source):
    before = rows_of(source)
    with pytest.raises(Conflict, match="is not empty"):
        copy_store(source, source)
    assert rows_of(source) == before


def test_a_database_of_something_else_is_left_alone(source, target):
    change(target, DDL("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(Conflict, match=r"tables of something else \(customers\)"):
        copy_store(source, target)
    with connected(target) as connection:
        assert inspect(connection).get_table_names() == ["customers"]


def test_a_source_of_another_schema_is_refused(source, target):
    change(source, update(_VERSION).values(version_num="0001"))
    with pytest.raises(StoreError, match=r"is at revision 0001, .* first: covey store migrate"):
        copy_store(source, target)


def test_a_source_that_is_not_there_is_not_made(tmp_path, sqlite, empty_postgres):
    with pytest.raises(NotFound, match=r"there is no database .*missing\.db"):
        copy_store(f"sqlite:///{tmp_path}/missing.db", sqlite)
    with pytest.raises(NotFound, match="holds no record"):
        copy_store(empty_postgres, sqlite)
    assert list(tmp_path.iterdir()) == []


def command(source, target, faults=""):
    arguments = ["store", "copy", "--from", source, "--to", target, "--json"]
    program = [sys.executable, "-m", "covey.cli.main", *arguments]
    return subprocess.run(program, capture_output=True, text=True, env=os.environ | {"COVEY_FAULTS": faults})


def test_killed_in_the_middle_it_leaves_nothing(source, target):
    killed = command(source, target, faults=f"store-copy-block:{len(TABLES) - 1}")  # a block a table
    assert killed.returncode == -9
    assert not any(counts(target).values())
    done = command(source, target)
    assert done.returncode == 0, done.stderr
    assert rows_of(target) == rows_of(source)
