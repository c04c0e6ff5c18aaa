"""Engines for the two back ends: durable commits, JSON that keeps every float, errors in our own words."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, exc, make_url

from covey.errors import DiskFull, Obstructed, StoreError, StoreUnavailable
from covey.storage.files.spool import free_at
from covey.storage.sql.hot import begin

BUSY_TIMEOUT_MS = 3000
"""So long a lock of another program is waited for in SQLite itself, which holds up all other calls; then it is said."""
CONNECT_TIMEOUT_S = 5
WRITES = "covey_writes"
"""Execution option of the one connection that writes."""
FLOAT_MARK = "$float"
"""JSON has no infinities and no NaN, PostgreSQL refuses them: they are stored as {"$float": "inf"}."""


def database_url(url: str) -> URL:
    """Read a store's URL: `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.

    Raises:
        StoreError: Another scheme, not a URL, or an SQLite database without a file.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise StoreError("not a store's URL; write sqlite:///PATH or postgresql://USER@HOST/DATABASE") from error
    backend = parsed.get_backend_name()
    if backend in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"a store cannot be {backend!r}; choose sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    if parsed.database in (None, "", ":memory:"):
        raise StoreError("the record must survive a restart: name a file, as in sqlite:////var/lib/covey/covey.db")
    return parsed.set(drivername="sqlite+pysqlite")


def sqlite_path(url: URL) -> Path | None:
    """The database file; None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def make_engine(url: URL) -> Engine:
    """An engine whose commits are durable and whose reads see one state; it connects when it is first used.

    Raises:
        StoreError: The driver for PostgreSQL is not installed.
    """
    return _sqlite_engine(url) if sqlite_path(url) is not None else _postgres_engine(url)


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url, connect_args={"isolation_level": None}, json_serializer=dump_json, json_deserializer=load_json
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get(WRITES)
        begin(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


_SESSION = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)
"""Commits are durable whatever the server's default is; the lock of a dead machine is free in a minute."""


_CONNECTION = {
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Texts come as text also from a database that was made as SQL_ASCII; a server whose machine died is noticed in a
minute (seconds; `tcp_user_timeout`: milliseconds)."""


def _postgres_engine(url: URL) -> Engine:
    try:
        engine = create_engine(
            url, pool_pre_ping=True, connect_args=_CONNECTION, json_serializer=dump_json, json_deserializer=load_json
        )
    except ImportError as error:
        raise StoreError("PostgreSQL needs psycopg: pip install 'covey[postgres]'") from error

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        connection.commit()

    return engine


# -- JSON ----------------------------------------------------------------------------------------------------


def dump_json(value: object) -> str:
    """Compact JSON; infinities and NaN survive (see FLOAT_MARK)."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_marked(value), allow_nan=False, separators=(",", ":"))


def load_json(text: str | bytes) -> Any:
    """The inverse of `dump_json`; tuples come back as lists."""
    mark = FLOAT_MARK if isinstance(text, str) else FLOAT_MARK.encode()
    return json.loads(text, object_hook=_unmark if mark in text else None)  # type: ignore[operator]


def _marked(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT_MARK: repr(value)}
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value


def _unmark(item: dict[str, Any]) -> Any:
    marked = len(item) == 1 and item.get(FLOAT_MARK) in ("nan", "inf", "-inf")
    return float(item[FLOAT_MARK]) if marked else item


# -- errors --------------------------------------------------------------------------------------------------

_FULL = "the disk of the database{place} is full: nothing was recorded; free space there"
_READ_ONLY = (
    "the database{place} cannot be written: give this user the right to write it, and the folder that it is in, and "
    "mount their disk for writing"
)


@contextlib.contextmanager
def translated(path: Path | None = None) -> Iterator[None]:
    """Turn the database library's errors into ours.

    Args:
        path: The database's file, if it is one, for messages.
    """
    try:
        yield
    except exc.DBAPIError as error:
        raise store_error(error, path) from error
    except exc.TimeoutError as error:
        raise StoreUnavailable("every connection to the database is in use; try again") from error


def store_error(error: exc.DBAPIError, path: Path | None = None) -> StoreError:
    """What a driver's error means: not now (`StoreUnavailable`, `Obstructed`), or refused (`StoreError`)."""
    if not isinstance(error.orig, sqlite3.Error):  # of another database that is read meanwhile
        path = None
    text, place = str(error.orig).strip(), "" if path is None else f" {path}"
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    state = getattr(error.orig, "sqlstate", None)
    if code == sqlite3.SQLITE_FULL or state == "53100":
        return DiskFull(_FULL.format(place=place + ("" if path is None else free_at(path))))
    if code == sqlite3.SQLITE_READONLY or state == "25006":
        return Obstructed(_READ_ONLY.format(place=place))
    if code in _SQLITE_AWAY or (not code and _broken(error)):
        return StoreUnavailable(f"the database{place} cannot be used now: {text}")
    return StoreError(f"the database refused: {text}")


_SQLITE_AWAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def _broken(error: exc.DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)
