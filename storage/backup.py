"""A consistent copy of the record, made while it is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from covey.errors import Conflict, StoreError
from storage.contract import Store
from storage.copy import copy_record
from storage.database import Database
from storage.engine import database_url, sqlite_path
from storage.migrate import migrate
from storage.sql import SqlStore

FILE = "covey.db"


def copy_database(store: Store, folder: Path) -> Path:
    """Copy a record into `folder`, durably, as it is at one moment, into SQLite whatever it is in.

    Returns:
        The new file, `covey.db`.

    Raises:
        Conflict: There is a `covey.db` in the folder already.
        StoreError: This store has no database, or the copy cannot be written.
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
        raise StoreError(f"{target} cannot be written: {error}") from error
    return target


def _copy(source: Database, target: Path) -> None:
    path = sqlite_path(source.url)
    if path is not None:
        _copy_file(path, target)
        return
    url = f"sqlite:///{target}"
    migrate(url)
    with contextlib.closing(Database(database_url(url))) as made:
        copy_record(source, made)


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
