"""Opening a record: its engine, what its durability means on disk, and whether this version can read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.orm import Session

from covey.errors import StoreError
from covey.node.gossip.record.schema import VERSION, Base, RunRow
from covey.storage.files.spool import disk_errors, sync_folder
from covey.storage.sql.engine import database_url, make_engine, translated

FILE = "record.db"
Durability = Literal["process", "power"]
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
"""What SQLite syncs in WAL mode: nothing at a commit (a killed process loses nothing), or the log at each commit."""


def create_record(folder: Path, write: Callable[[Engine], None]) -> None:
    """Make a run's record, under its name only when it is whole: nobody reads half of one, or gets in the way of it.

    Args:
        folder: Where; made if it is missing.
        write: Writes its first rows.

    Raises:
        StoreError: It cannot be made.
    """
    staged = folder / f"{FILE}.new"
    for left in folder.glob(f"{staged.name}*"):  # of one that was never finished
        left.unlink()
    engine = open_record(folder, staged.name)
    try:
        write(engine)
    finally:
        engine.dispose()
    with disk_errors(staged):
        staged.rename(folder / FILE)
        sync_folder(folder)


def open_record(folder: Path, file: str = FILE) -> Engine:
    """The engine of a run's record; tables are made where there are none.

    Raises:
        StoreError: It cannot be opened, or was written by a newer version: then nothing in it is touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = make_engine(database_url(f"sqlite:///{folder / file}"))
    with translated():
        is_written = inspect(engine).has_table(RunRow.__tablename__)
    if is_written:
        require_version(engine, folder)
    with translated():  # with the tables that came since it was written
        Base.metadata.create_all(engine)
    return engine


def require_version(engine: Engine, folder: Path) -> None:
    """Refuse a record of a newer form. Raises StoreError."""
    with translated(), Session(engine) as session:
        version = session.scalar(select(RunRow.version))
    if version is not None and version > VERSION:
        raise StoreError(
            f"the record in {folder} was written by a newer version of Covey (form {version}; this one reads forms "
            f"up to {VERSION}): start the node with that version, or a newer one"
        )


def sync_as(connection: Connection, durability: Durability) -> None:
    """Say what of this connection's commits has to be on disk before they count."""
    driver = connection.connection.cursor()  # outside of a transaction, where SQLAlchemy would begin one
    driver.execute(f"PRAGMA synchronous={SYNCHRONOUS[durability]}")
    driver.close()
