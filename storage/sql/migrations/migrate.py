"""Bring a database to this version's schema. Alembic, slow to import, is needed only where it is behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, exc, func, inspect, select

from covey import __version__
from covey.errors import Conflict, NotFound, StoreError
from covey.storage.sql.engine import WRITES, database_url, make_engine, sqlite_path, translated
from covey.storage.sql.locks import ADVISORY_KEY, LOCK_TIMEOUT, PATIENCE_MS, FileLock

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0009"
"""The newest revision in `storage/sql/migrations/versions`."""
MIGRATIONS = Path(__file__).parent
_MIGRATION_KEY = 0x636F766579_4D
"""Of the PostgreSQL lock that lets one process at a time migrate."""
_ALEMBIC = threading.Lock()
"""Alembic knows one upgrade at a time in a process: with two, statements of one go to the other's database."""
_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def migrate(url: str) -> None:
    """Make the tables, or bring them up to date; nothing where they are. Two processes may do so at once.

    Raises:
        StoreError: The database was made by a newer Covey, or is no database.
        Conflict: It is behind, and a coordinator still runs on it.
        StoreUnavailable: It cannot be reached.
    """
    parsed = database_url(url)
    engine = make_engine(parsed)
    try:
        with translated(sqlite_path(parsed)):
            with engine.connect() as connection:
                behind = revision(connection) != HEAD
            if behind:
                with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
                    _upgrade(connection)
    finally:
        engine.dispose()


def require_current(url: str) -> None:
    """Refuse a database that is not at this version's schema; nothing in it changes.

    Raises:
        NotFound: It is a file that is missing, or it is empty.
        StoreError: It is behind, or was made by a newer Covey, or is no database.
        StoreUnavailable: It cannot be reached.
    """
    parsed = database_url(url)
    path = sqlite_path(parsed)
    if path is not None and not path.is_file():  # SQLite would make it
        raise NotFound(f"there is no database {path}; check the name")
    engine = make_engine(parsed)
    try:
        with translated(path), engine.connect() as connection:
            current = revision(connection)
    finally:
        engine.dispose()
    if current == HEAD:
        return
    if current is None:
        raise NotFound("the database is empty: no coordinator has kept its record there; check the name")
    _require_known(current)
    raise StoreError(
        f"start the coordinator, or run `covey store migrate`, to bring the record from revision {current} to {HEAD} "
        "(make a backup first)"
    )


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None if it is empty."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    stored: str | None = connection.execute(select(_VERSION.c.version_num)).scalar()
    return stored


def _upgrade(connection: Connection) -> None:
    from alembic import command

    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_KEY})")
    stored = revision(connection)
    if stored == HEAD:
        return
    if stored is not None:
        _require_known(stored)
    config = _config()
    config.attributes["connection"] = connection
    with _without_coordinator(connection) if stored else contextlib.nullcontext(), _ALEMBIC:
        command.upgrade(config, "head")


def _require_known(stored: str) -> None:
    from alembic.script import ScriptDirectory

    if stored not in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise StoreError(
            f"the database is at revision {stored}, this version of Covey ({__version__}) knows those up to {HEAD}: "
            "start the newer Covey that made it, or restore a backup that was made before the upgrade"
        )


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@contextlib.contextmanager
def _without_coordinator(connection: Connection) -> Iterator[None]:
    """Hold the coordinator's lock, so that none of an older version writes into tables that change under it."""
    path = sqlite_path(connection.engine.url)
    if path is None:
        _lock_in_transaction(connection)
        yield
        return
    lock = FileLock(path)
    if not lock.take(connection):
        raise Conflict(_IN_USE)
    try:
        yield
    finally:
        lock.release()


def _lock_in_transaction(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
    try:
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_KEY)))
    except exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_TIMEOUT:
            raise
        raise Conflict(_IN_USE) from error
    connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")


_IN_USE = "a coordinator of an older version runs on this database: stop it (covey coordinator drain), then upgrade"
