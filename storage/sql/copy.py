"""A whole record copied into another, empty database: from one back end to the other, or out of one that is in use."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from sqlalchemy import URL, Connection, Table, func, inspect, select, update

from covey import faults
from covey.errors import Conflict, NotFound, StoreError
from covey.storage.sql.database import Database
from covey.storage.sql.engine import database_url, make_engine, sqlite_path, translated
from covey.storage.sql.migrations.migrate import HEAD, migrate, revision
from covey.storage.sql.schema import LEASE_ROW, Base, lease

BLOCK_ROWS = 500
Report = Callable[[str, int, int], None]
"""Told of each block: the table's name, how many of its rows are copied, how many there are."""


def _silent(table: str, copied: int, rows: int) -> None:
    pass


def copy_store(source_url: str, target_url: str, report: Report = _silent) -> dict[str, int]:
    """Copy a record, all of it or nothing, while no coordinator runs on either database.

    Args:
        source_url: Where it is, at this version's schema; see `covey.storage.sql.store.open_store` for URLs.
        target_url: An empty database, or one with empty tables of ours; it is brought to this version's schema.
        report: Told how far it is.

    Returns:
        How many rows were copied, by table.

    Raises:
        NotFound: There is no record at `source_url`.
        Conflict: The target is not empty, or a coordinator runs on one of the two.
        StoreError: The source has another version's schema.
    """
    source_at, target_at = database_url(source_url), database_url(target_url)
    _check_source(source_at)
    _check_target(target_at)
    migrate(target_url)
    holder = f"store copy on {socket.gethostname()}:{os.getpid()}"
    with closing(Database(source_at)) as source, closing(Database(target_at)) as target:
        source.acquire_lease(holder)
        target.acquire_lease(holder)
        return copy_record(source, target, report)


def copy_record(source: Database, target: Database, report: Report = _silent) -> dict[str, int]:
    """Copy every row as it is at one moment, in one transaction on the target; the caller sees to the leases.

    Raises:
        Conflict: The target is not empty.
    """
    with source.reading() as origin, target.writing() as copy:
        _check_empty(copy, target.url)
        copied = {table.name: _copy_table(origin, copy, table, report) for table in _tables()}
        _copy_lease(origin, copy)
        _advance_sequences(copy)
    return copied


def _tables() -> list[Table]:
    """Each after those that it refers to; without the lease, which is in every database."""
    return [table for table in Base.metadata.sorted_tables if table is not lease]


def _copy_table(source: Connection, target: Connection, table: Table, report: Report) -> int:
    rows = source.execute(select(func.count()).select_from(table)).scalar_one()
    wanted = select(table).order_by(*table.primary_key)
    stored = source.execute(wanted, execution_options={"yield_per": BLOCK_ROWS})
    copied = 0
    for block in stored.mappings().partitions():
        values: list[dict[str, Any]] = [dict(row) for row in block]
        target.execute(table.insert(), values)
        copied += len(values)
        report(table.name, copied, rows)
        faults.reach("store-copy-block")
    return copied


def _copy_lease(source: Connection, target: Connection) -> None:
    """The next coordinator gets a higher number than any before it. Changed in place: others may wait for the row."""
    row = source.execute(select(lease.c.epoch, lease.c.holder).where(lease.c.id == LEASE_ROW)).one()
    target.execute(update(lease).where(lease.c.id == LEASE_ROW).values(epoch=row.epoch, holder=row.holder))


def _advance_sequences(target: Connection) -> None:
    """Rows that came with their numbers have used none of PostgreSQL's; SQLite goes on from the highest by itself."""
    if target.dialect.name != "postgresql":
        return
    for table in _tables():
        column = table.autoincrement_column
        if column is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            target.execute(select(func.setval(sequence, select(func.max(column)).scalar_subquery())))


# -- what must be true before ------------------------------------------------------------------------------------


def _check_source(url: URL) -> None:
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise NotFound(f"there is no database {path}; name the one that holds the record")
    stored = _look(url, lambda connection: revision(connection))
    if stored is None:
        raise NotFound(f"{_shown(url)} holds no record; name the database that does")
    if stored != HEAD:
        raise StoreError(
            f"{_shown(url)} is at revision {stored}, this version of Covey at {HEAD}: first: covey store migrate; "
            "where the database is the newer one, use the Covey that made it"
        )


def _check_target(url: URL) -> None:
    _look(url, lambda connection: _check_empty(connection, url))


def _look(url: URL, question: Callable[[Connection], Any]) -> Any:
    engine = make_engine(url)
    try:
        with translated(), engine.connect() as connection:
            return question(connection)
    finally:
        engine.dispose()


def _check_empty(connection: Connection, url: URL) -> None:
    names = set(inspect(connection).get_table_names())
    if names and revision(connection) is None:
        raise Conflict(f"{_shown(url)} has tables of something else ({min(names)}): make a database for Covey alone")
    for table in _tables():
        if table.name in names and connection.execute(select(1).select_from(table).limit(1)).first():
            raise Conflict(f"{_shown(url)} is not empty (table {table.name} has rows): name an empty database")


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
