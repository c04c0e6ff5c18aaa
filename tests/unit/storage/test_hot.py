"""Statements that are run on the driver's own connection do what SQLAlchemy's execution of them does."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import bindparam, delete, exc, insert, select, update

from covey.storage.sql.engine import database_url, make_engine
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.migrations.migrate import migrate
from covey.storage.sql.schema import file_references, runs

RUN = {
    "run": "a",
    "name": "n\0ame",
    "mode": "rounds",
    "spec": "{}",
    "seed": 7,
    "state": "running",
    "reason": "it\0 waits",
    "submitted_at": 1.5,
    "started_at": None,
    "ended_at": math.inf,
    "roster": ["x", 1.25, math.nan],
    "parts": 0,
    "layout": "[]",
}


@pytest.fixture
def connection(tmp_path):
    url = f"sqlite:///{tmp_path}/covey.db"
    migrate(url)
    engine = make_engine(database_url(url))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_rows_are_written_and_read_as_by_sqlalchemy(connection):
    HotStatement(insert(runs)).run(connection, RUN)
    [usual] = connection.execute(select(runs)).all()
    whole = HotStatement(select(runs).where(runs.c.run == bindparam("b_run")))
    found = whole.row(connection, {"b_run": "a"})
    assert repr(tuple(found)) == repr(tuple(usual))
    assert repr(found._mapping) == repr(dict(usual._mapping))
    assert found.reason == "it\ufffd waits"
    assert whole.row(connection, {"b_run": "b"}) is None
    renamed = HotStatement(select(runs.c.run.label("id"), runs.c.roster).where(runs.c.state == "running"))
    [row] = renamed.rows(connection, {})
    assert (row.id, row.roster[:2]) == ("a", ["x", 1.25])


def test_changes_are_counted_and_belong_to_the_transaction(connection):
    HotStatement(insert(runs)).run(connection, RUN)
    connection.commit()
    add = HotStatement(insert(file_references))
    rows = [{"run": "a", "kind": "update", "number": n, "node": "x", "digest": "d"} for n in (1, 2, 3)]
    assert add.run(connection, rows) == 3
    change = update(file_references).where(file_references.c.number == bindparam("b_n")).values(digest=bindparam("b_d"))
    assert HotStatement(change).run(connection, [{"b_n": n, "b_d": "e"} for n in (1, 3, 9)]) == 2
    assert HotStatement(delete(file_references).where(file_references.c.digest == "e")).run(connection, {}) == 2
    assert connection.in_transaction()
    connection.rollback()
    assert connection.execute(select(file_references)).all() == []


def test_errors_are_those_of_sqlalchemy_and_tell_no_values(connection):
    HotStatement(insert(runs)).run(connection, RUN)
    with pytest.raises(exc.IntegrityError, match="UNIQUE constraint") as raised:
        HotStatement(insert(runs)).run(connection, RUN)
    assert "waits" not in str(raised.value)
    row = {"run": "nobody", "kind": "update", "number": 1, "node": "x", "digest": "d"}
    with pytest.raises(exc.IntegrityError, match="FOREIGN KEY"):
        HotStatement(insert(file_references)).run(connection, row)
    connection.execute(insert(runs), RUN | {"run": "b"})
    with pytest.raises(exc.MultipleResultsFound):
        HotStatement(select(runs.c.run)).row(connection, {})
