"""Seals in SQL: written at the end of a transaction that changed what is shown, and read for an audit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, func, insert, or_, select
from typing_extensions import override

from covey.storage.record.seals import Facts, RawRow, Sealer, SealRecord, Seals, sealed, statement_of
from covey.storage.sql.database import Database
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.raw_rows import any_text, raw_columns, raw_values
from covey.storage.sql.schema import (
    assignments,
    events,
    gossip_members,
    gossip_statements,
    groups,
    keys,
    runs,
    seals,
    steps,
    versions,
)
from covey.storage.sql.touched import Ledger, Touched

PAGE = 500
MOST_RUNS = 1000
TABLES: tuple[Table, ...] = (runs, groups, assignments, versions, steps, events, gossip_members)
_ADD = HotStatement(insert(seals))
_LAST = (
    select(seals.c.number, seals.c.statement)
    .where(seals.c.run == bindparam("b_run"))
    .order_by(seals.c.number.desc())
    .limit(1)
)
_RUN = select(*raw_columns(runs)).where(runs.c.run == bindparam("b_run"))


def _numbered(table: Table, column: str) -> tuple[HotStatement, Select[Any]]:
    """Rows by one number, which is what most transactions change and costs less, and by several."""
    of_run = select(*raw_columns(table)).where(table.c.run == bindparam("b_run")).order_by(*table.primary_key)
    several = table.c[column].in_(bindparam("b_numbers", expanding=True))
    return HotStatement(of_run.where(table.c[column] == bindparam("b_number"))), of_run.where(several)


_GROUPS = _numbered(groups, "number")
_ASSIGNMENTS = _numbered(assignments, "group_number")
_VERSIONS = _numbered(versions, "version")
_STEPS = _numbered(steps, "number")
_EVENTS = _numbered(events, "id")
_MEMBERS = (
    select(*raw_columns(gossip_members))
    .where(gossip_members.c.run == bindparam("b_run"), gossip_members.c.node.in_(bindparam("b_nodes", expanding=True)))
    .order_by(gossip_members.c.node)
)
_COUNTS = {
    table.name: select(func.count(), func.max(table.c[column])).where(table.c.run == bindparam("b_run"))
    for table, column in ((groups, "number"), (versions, "version"), (steps, "number"), (events, "id"))
}


class SignedLedger(Ledger):
    """The seals of one database's writer.

    Args:
        sealer: Whose they are.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._last: dict[str, tuple[int, str]] = {}
        """Of runs that were sealed last: the number of the newest seal, and its digest."""

    @override
    def forget(self) -> None:
        self._last.clear()

    @override
    def seal(self, connection: Connection, run: str, touched: Touched) -> None:
        rows = [sealed(table.name, raw_values(table, row)) for table, row in _rows_of(connection, run, touched)]
        last, parent = self._last.get(run) or _newest(connection, run)
        number = last + 1
        facts = Facts(
            before=_before(connection, run, touched) if not last and not touched.new else {},
            end=_end(connection, run) if touched.ended else {},
        )
        statement = statement_of(self._sealer, run, number, parent, rows, facts)
        record = SealRecord(run, number, statement, self._sealer.sign(statement))
        _ADD.run(connection, vars(record))
        if len(self._last) > MOST_RUNS:
            self._last.clear()
        self._last[run] = number, hashlib.sha256(statement).hexdigest()


def _newest(connection: Connection, run: str) -> tuple[int, str]:
    """The number of a run's newest seal, and its digest; 0 and nothing before the first."""
    last = connection.execute(_LAST, {"b_run": run}).one_or_none()
    return (0, "") if last is None else (last.number, hashlib.sha256(last.statement).hexdigest())


def _rows_of(connection: Connection, run: str, touched: Touched) -> Iterator[tuple[Table, Any]]:
    wanted = (
        (groups, _GROUPS, touched.groups),
        (assignments, _ASSIGNMENTS, touched.groups),
        (versions, _VERSIONS, touched.versions),
        (steps, _STEPS, touched.steps),
        (events, _EVENTS, touched.events),
    )
    if touched.row:
        yield from ((runs, row) for row in connection.execute(_RUN, {"b_run": run}).mappings())
    for table, (of_one, of_several), numbers in wanted:
        if len(numbers) == 1:
            rows = of_one.rows(connection, {"b_run": run, "b_number": next(iter(numbers))})
        elif numbers:
            rows = connection.execute(of_several, {"b_run": run, "b_numbers": sorted(numbers)}).all()
        yield from ((table, row._mapping) for row in (rows if numbers else ()))
    if touched.members:
        members = connection.execute(_MEMBERS, {"b_run": run, "b_nodes": sorted(touched.members)})
        yield from ((gossip_members, row) for row in members.mappings())


def _before(connection: Connection, run: str, touched: Touched) -> dict[str, int]:
    """The highest numbers on record that this transaction did not make; -1: none."""
    numbers = {"groups": touched.groups, "model_versions": touched.versions, "steps": touched.steps}
    numbers["events"] = touched.events
    counts: dict[str, int] = {}
    for table, query in _COUNTS.items():
        _, highest = connection.execute(query, {"b_run": run}).one()
        highest = -1 if highest is None else highest
        while highest in numbers[table] and table != "groups":
            highest -= 1
        counts[table] = highest
    return counts


def _end(connection: Connection, run: str) -> dict[str, Any]:
    counts = {table: connection.execute(query, {"b_run": run}).one() for table, query in _COUNTS.items()}
    state = connection.execute(select(runs.c.state).where(runs.c.run == run)).scalar_one()
    last = counts[versions.name][1]
    rows = {table: count for table, (count, _) in counts.items() if table != events.name}
    return {"state": state, "version": -1 if last is None else last, "rows": rows}


class SqlSeals(Seals):
    """The methods of `Store` that concern seals."""

    _db: Database

    @override
    def seal_with(self, sealer: Sealer) -> None:
        self._db.ledger = SignedLedger(sealer)

    @override
    def audited_rows(self, run: str) -> Iterator[RawRow]:
        with self._db.reading() as connection:
            yield from audited_rows(connection, run)


def audited_rows(connection: Connection, run: str) -> Iterator[RawRow]:
    """See `Seals.audited_rows`."""
    with any_text(connection):
        for table in (*TABLES, gossip_statements):
            yield from _of_run(connection, table, run)
        yield from _keys(connection, run)
        yield from _of_run(connection, seals, run)
        for table in (events, seals):
            yield from _of_run(connection, table, "")


def _of_run(connection: Connection, table: Table, run: str) -> Iterator[RawRow]:
    order = [column for column in table.primary_key if column.name != "run"]
    query = select(*raw_columns(table)).where(table.c.run == run).order_by(*order)
    rows = connection.execute(query, execution_options={"yield_per": PAGE}).mappings()
    for block in rows.partitions():
        yield from _raw(table, block)


def _keys(connection: Connection, run: str) -> Iterator[RawRow]:
    used = [select(table.c.key_id).where(table.c.run == run) for table in (assignments, gossip_statements)]
    query = select(*raw_columns(keys)).where(or_(*map(keys.c.key_id.in_, used))).order_by(keys.c.key_id)
    yield from _raw(keys, connection.execute(query).mappings().all())


def _raw(table: Table, rows: Sequence[Any]) -> list[RawRow]:
    return [RawRow(table.name, raw_values(table, row)) for row in rows]
