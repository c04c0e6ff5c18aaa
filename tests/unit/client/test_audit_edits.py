"""Every kind of edit of every column that a view prints is found: the test is made from the schema and the views."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, LargeBinary, create_engine, inspect
from sqlalchemy.exc import IntegrityError

from covey.cli.framework import fields
from covey.client.audit.rows import AuditedRun
from covey.client.audit.verify import AuditReport, examine_record
from covey.storage.record.seals import LOCAL, SEALED
from covey.storage.sql.schema import Base
from covey.storage.sql.tables.seals import audited_rows
from tests.unit.client.sealed_record import ASYNC, COORDINATOR, FEDERATION, GOING, SYNC, write_record

TABLES = {table.name: table for table in Base.metadata.sorted_tables}
KEYS = {**SEALED, "runs": ("run",), "seals": ("number",), "keys": ("key_id",)}
NOT_ON_KEYS = ("node", "valid_from", "valid_until")
"""Columns of `keys` that no view of a run prints; what counts is that a key has the name that is signed."""
RUNS = (SYNC, ASYNC, GOING)

SHOWN: dict[str, dict[str, str]] = {
    "RUN_DETAIL_FIELDS": {
        **{name: f"runs.{name}" for name in ("run", "name", "mode", "state", "reason", "spec", "roster")},
        "roster_size": "runs.roster",
        **{name: f"runs.{name}" for name in ("submitted_at", "started_at", "ended_at")},
        **dict.fromkeys(("rounds_committed", "model_version"), "model_versions.version"),
        **dict.fromkeys(("rounds", "updates", "parent", "study"), "runs.spec"),
        "model_sha256": "model_versions.model_sha256",
        **dict.fromkeys(("metrics", "missing"), "model_versions.metrics"),
        "updates_decided": "steps.number",
        "steps": "runs.spec",
        "steps_done": "gossip_statements.step",
    },
    "ROUND_FIELDS": {
        "round": "groups.number",
        **{name: f"groups.{name}" for name in ("state", "attempt", "started_at", "committed_at", "reason", "invited")},
        **{name: f"groups.{name}" for name in ("bytes_received", "bytes_sent", "base_version", "version", "arrival")},
        "seconds": "groups.committed_at",
        "phase": "groups.phase",
        "last_reason": "assignments.reason",
        **dict.fromkeys(("accepted", "rejected", "declined", "lost", "late", "received"), "assignments.verdict"),
        **dict.fromkeys(("metrics", "missing"), "model_versions.metrics"),
    },
    "CONTRIBUTION_FIELDS": {
        "node": "assignments.node",
        "asked": "groups.invited",
        "last_round": "assignments.group_number",
        **dict.fromkeys(("accepted", "rejected", "declined", "lost", "late", "last_verdict"), "assignments.verdict"),
        "last_reason": "assignments.reason",
    },
    "UPDATE_FIELDS": {
        name: f"assignments.{name}"
        for name in (
            *("node", "verdict", "reason", "digest", "bytes", "weight", "share", "numbers", "metrics", "received_at"),
            *("base_sha256", "key_id", "phase"),
        )
    }
    | {"missing": "assignments.metrics", "code": "assignments.statement"},
    "VERSION_FIELDS": {
        **{name: f"model_versions.{name}" for name in ("version", "model_sha256", "digest", "metrics", "created_at")},
        "bytes": "model_versions.size_bytes",
        "kept": "model_versions.kept",
        "missing": "model_versions.metrics",
    },
    "EVENT_FIELDS": {name: f"events.{name}" for name in ("at", "kind", "run", "node", "detail")},
}
"""Field of a view to the column that it is made of. A new field needs a line here."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record in a database that refuses nothing: whoever edits it can drop constraints, too."""
    path = tmp_path_factory.mktemp("record") / "covey.db"
    write_record(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ', \n\tFOREIGN KEY', ', \n\tCHECK (1) --')")
    connection.close()
    return path


@contextmanager
def edited(record: Path) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with engine(record).connect() as connection:
        yield connection
        connection.rollback()


@cache
def engine(record: Path) -> Engine:
    return create_engine(f"sqlite:///{record}")


def audit(connection: Connection, run: str) -> AuditReport:
    audited = AuditedRun(COORDINATOR.public_bytes)
    for row in audited_rows(connection, run):
        audited.add(row.table, json.loads(json.dumps(row.values)))
    return examine_record(audited, FEDERATION, COORDINATOR.public_bytes)


Edit = Callable[[Connection, str, str, list[int]], bool]
"""Edits a column of a table's rows (by rowid); False: there is nothing to edit so."""


def _set(connection: Connection, table: str, column: str, row: int, value: object) -> None:
    connection.exec_driver_sql(f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (value, row))


def _value(connection: Connection, table: str, column: str, row: int) -> Any:
    return connection.exec_driver_sql(f'SELECT "{column}" FROM {table} WHERE rowid = ?', (row,)).scalar()


def changed(connection: Connection, table: str, column: str, rows: list[int]) -> bool:
    value = _value(connection, table, column, rows[-1])
    match value:
        case int() | float():
            other: object = value + 1000
        case bytes():
            other = bytes([value[0] ^ 1]) + value[1:] if value else b"x"
        case str() if value[:1] in ("{", "["):
            other = '{"other": 1}' if value[0] == "{" else '["other"]'
        case None:
            other = 1
        case _:
            other = value + "x"
    _set(connection, table, column, rows[-1], other)
    return True


def nulled(connection: Connection, table: str, column: str, rows: list[int]) -> bool:
    if _value(connection, table, column, rows[0]) is None:
        return False
    _set(connection, table, column, rows[0], None)
    return True


def swapped(connection: Connection, table: str, column: str, rows: list[int]) -> bool:
    first, last = (_value(connection, table, column, row) for row in (rows[0], rows[-1]))
    if first == last:
        return False
    _set(connection, table, column, rows[0], f"swapping {column}")
    _set(connection, table, column, rows[-1], first)
    _set(connection, table, column, rows[0], last)
    return True


def text_for_bytes(connection: Connection, table: str, column: str, rows: list[int]) -> bool:
    if not isinstance(TABLES[table].c[column].type, LargeBinary):
        return False
    connection.exec_driver_sql(f'UPDATE {table} SET "{column}" = CAST("{column}" AS TEXT) WHERE rowid = ?', (rows[0],))
    return True


def words_for_bytes(connection: Connection, table: str, column: str, rows: list[int]) -> bool:
    _set(connection, table, column, rows[0], "some words")
    return isinstance(TABLES[table].c[column].type, LargeBinary)


def rows_of(connection: Connection, table: str, run: str) -> list[int]:
    values: tuple[str, ...] = ()
    if table == "keys":
        query = "SELECT rowid FROM keys WHERE node IN ('a', 'b') ORDER BY rowid"
    else:
        order = ", ".join(f'"{name}"' for name in KEYS[table])
        query, values = f"SELECT rowid FROM {table} WHERE run = ? ORDER BY {order}", (run,)
    return list(connection.exec_driver_sql(query, values).scalars())


def columns() -> list[tuple[str, str]]:
    found = [(name, column.name) for name in (*SEALED, "seals", "keys") for column in TABLES[name].c]
    return [pair for pair in found if pair not in LOCAL or pair == ("steps", "state")]


def test_the_record_is_right_as_it_was_written(record: Path) -> None:
    with edited(record) as connection:
        for run in RUNS:
            report = audit(connection, run)
            assert report.ok, report.problems
        assert report.notes == ("1 rounds are open; they are sealed when they end",)


@pytest.mark.parametrize("edit", [changed, nulled, swapped, text_for_bytes, words_for_bytes])
def test_no_edit_of_a_column_passes(record: Path, edit: Edit) -> None:
    passed, tried = [], 0
    for table, column in columns():
        if table == "keys" and column in NOT_ON_KEYS:
            continue
        for run in (SYNC, ASYNC) if table in ("groups", "steps") else (SYNC,):
            with edited(record) as connection:
                rows = rows_of(connection, table, run)
                try:
                    is_edited = bool(rows) and edit(connection, table, column, rows)
                except IntegrityError:  # the database itself refuses two rows of one key
                    assert column in KEYS[table]
                    continue
                tried += is_edited
                if is_edited and audit(connection, run).ok:
                    passed.append((run, table, column))
    assert tried > 3
    assert not passed, passed


def copied(connection: Connection, table: str, row: int) -> None:
    """A copy of a row under another name."""
    key = KEYS[table][-1]
    names = [column.name for column in TABLES[table].c]
    taken = ", ".join(f"{name} || 'z'" if name == key and name in ("node", "run") else f'"{name}"' for name in names)
    if key not in ("node", "run"):
        taken = taken.replace(f'"{key}"', f'"{key}" + 100')
    listed = ", ".join(f'"{name}"' for name in names)
    connection.exec_driver_sql(f"INSERT INTO {table} ({listed}) SELECT {taken} FROM {table} WHERE rowid = ?", (row,))


@pytest.mark.parametrize("table", [*(name for name in SEALED if name != "runs"), "seals"])
@pytest.mark.parametrize("run", [SYNC, ASYNC])
def test_no_row_that_is_added_or_deleted_passes(record: Path, table: str, run: str) -> None:
    with edited(record) as connection:
        rows = rows_of(connection, table, run)
    for row in rows:
        with edited(record) as connection:
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid = ?", (row,))
            assert not audit(connection, run).ok, (table, "deleted", row)
        with edited(record) as connection:
            copied(connection, table, row)
            assert not audit(connection, run).ok, (table, "added", row)


@pytest.mark.parametrize("table", ["runs", "groups", "assignments", "model_versions", "steps", "events", "seals"])
@pytest.mark.parametrize("run", [SYNC, ASYNC])
def test_a_table_without_the_rows_of_a_run_is_found(record: Path, table: str, run: str) -> None:
    with edited(record) as connection:
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE run = ?", (run,))
        assert not audit(connection, run).ok


@pytest.mark.parametrize("run", [SYNC, ASYNC])
def test_the_last_rounds_cut_off_with_their_seals_are_found_by_the_end(record: Path, run: str) -> None:
    """Whoever cuts off the end too needs nodes' receipts to be found out: see below."""
    with edited(record) as connection:
        for table, column in (("groups", "number"), ("assignments", "group_number"), ("model_versions", "version")):
            connection.exec_driver_sql(f'DELETE FROM {table} WHERE run = ? AND "{column}" > 1', (run,))
        connection.exec_driver_sql("DELETE FROM steps WHERE run = ? AND number > 1", (run,))
        assert not audit(connection, run).ok


def test_events_of_no_run_are_chained_too(record: Path) -> None:
    for statement in (
        "DELETE FROM events WHERE run = '' AND id = (SELECT min(id) FROM events WHERE run = '')",
        "UPDATE events SET node = 'b' WHERE run = '' AND node = 'a'",
        "DELETE FROM seals WHERE run = '' AND number = 1",
    ):
        with edited(record) as connection:
            connection.exec_driver_sql(statement)
            assert not audit(connection, SYNC).ok, statement


def test_an_open_round_may_change_but_not_of_a_run_that_has_ended(record: Path) -> None:
    with edited(record) as connection:
        connection.exec_driver_sql("UPDATE groups SET attempt = 2 WHERE run = ? AND number = 2", (GOING,))
        assert audit(connection, GOING).ok
        connection.exec_driver_sql("UPDATE groups SET state = 'collecting' WHERE run = ? AND number = 1", (GOING,))
        assert not audit(connection, GOING).ok
    with edited(record) as connection:
        copied(connection, "groups", rows_of(connection, "groups", SYNC)[0])
        connection.exec_driver_sql("UPDATE groups SET state = 'collecting' WHERE run = ? AND number > 100", (SYNC,))
        assert any("was never sealed" in problem for problem in audit(connection, SYNC).problems)


def test_a_finding_names_the_place_and_both_values(record: Path) -> None:
    with edited(record) as connection:
        connection.exec_driver_sql(
            "UPDATE assignments SET weight = 9.0 WHERE run = ? AND node = 'a' AND group_number = 2", (SYNC,)
        )
        problems = audit(connection, SYNC).problems
    assert "round 2, update of a: weight is 9.0 on record, but was sealed as 3.0" in problems


def test_every_shown_field_is_of_a_column_that_is_sealed_or_said_to_be_local() -> None:
    for view, sources in SHOWN.items():
        assert set(getattr(fields, view)) == set(sources), view
        for name in sources:
            table, column = sources[name].split(".")
            assert column in TABLES[table].c, (view, name)
            assert table in {*SEALED, "gossip_statements"}, (view, name)
    assert set(fields.RUN_FIELDS) <= set(fields.RUN_DETAIL_FIELDS)
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()
    for (table, column), reason in LOCAL.items():
        assert f"`{table}.{column}`" in page
        assert reason.split(";")[0] in page
    assert LOCAL.keys() == {("assignments", "kept"), ("model_versions", "kept"), ("steps", "state")}


def test_tables_are_sealed_or_hold_nothing_that_a_view_of_a_run_prints() -> None:
    """`nodes` is what nodes say of themselves now, and what their certificates are: local, and not of a run.

    What nodes stated of gossip runs is signed by themselves, and looked at as such.
    """
    others = {"nodes", "keys", "tokens", "redemptions", "settings", "lease", "file_references", "seals"}
    assert set(TABLES) == {*SEALED, *others, "gossip_statements"}
    assert inspect(Base.metadata.tables["seals"]).primary_key.columns.keys() == ["run", "number"]
