"""A consistent copy of the record, made while it is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from sqlalchemy import exc, select

from covey.errors import Conflict, StoreError, StoreUnavailable
from covey.storage.record.contract import Store
from covey.storage.sql.copy import copy_record
from covey.storage.sql.database import Database
from covey.storage.sql.engine import database_url, sqlite_path
from covey.storage.sql.migrations.migrate import migrate
from covey.storage.sql.schema import file_references
from covey.storage.sql.store import SqlStore

FILE = "covey.db"


def copy_database(store: Store, folder: Path) -> Path:
    """Copy a record into `folder`, durably, as it is at one moment, into SQLite whatever it is in.

    Returns:
        The new file, `covey.db`.

    Raises:
        Conflict: There is a `covey.db` in the folder already.
        StoreError: This store has no database, or cannot be read, or the copy cannot be written.
        StoreUnavailable: The store's database went away.
    """
    if not isinstance(store, SqlStore):
        raise StoreError("this record is in no database that can be copied")
    target = folder / FILE
    if target.exists():
        raise Conflict(f"{target} exists already; name a new folder")
    try:
        _copy(store.database, target)
        _sync(target, folder)
    except (sqlite3.Error, OSError, StoreError) as error:
        drop_database(target)
        raise _named(error, target) from error
    return target


_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _named(error: Exception, target: Path) -> StoreError:
    """Say which of the two databases it is: the copy is SQLite whatever the record is in, and new."""
    driver = error.__cause__.orig if isinstance(error.__cause__, exc.DBAPIError) else error
    if isinstance(error, StoreError) and driver is not error and not isinstance(driver, sqlite3.Error):
        away = isinstance(error, StoreUnavailable)
        return (StoreUnavailable if away else StoreError)(f"the record cannot be read for its copy: {error}")
    if getattr(driver, "sqlite_errorcode", 0) & 0xFF in _UNREADABLE:
        return StoreError(f"the record cannot be read for its copy: {error}; look at it with: covey store check")
    return StoreError(f"{target} cannot be written: {error}")


def digests_in(copy: Path) -> set[str]:
    """The files that a copy refers to, which nobody else uses; nothing in it changes, and nothing beside it.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{copy.absolute().as_uri()}?immutable=1", uri=True)) as connection:
            return {digest for (digest,) in connection.execute(str(select(file_references.c.digest).distinct()))}
    except sqlite3.Error as error:
        raise StoreError(f"{copy} cannot be read: {error}") from error


def _copy(source: Database, target: Path) -> None:
    path = sqlite_path(source.url)
    if path is not None:
        _copy_file(path, target)
        return
    url = f"sqlite:///{target}"
    migrate(url)
    with contextlib.closing(Database(database_url(url))) as database:
        copy_record(source, database)


def _copy_file(source: Path, target: Path) -> None:
    connection = sqlite3.connect(source, isolation_level=None)
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.close()


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def drop_database(file: Path) -> None:
    """Delete an SQLite database that nobody uses, with what SQLite and the lease keep beside it."""
    for suffix in ("", "-wal", "-shm", ".lock"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
