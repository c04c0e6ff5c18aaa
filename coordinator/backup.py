"""A consistent copy of a coordinator's data directory, made while it runs, and its way back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

from coordinator.config import DATABASE, sqlite_url
from coordinator.environment import Environment
from covey.errors import Conflict, NotFound
from storage.backup import copy_database, drop_database
from storage.copy import copy_store
from storage.sql import migrate, open_store

KEYS = ("keys", "admin")
FILES = Path("files") / "artifacts"


async def back_up(env: Environment, folder: Path) -> int:
    """Write record (as SQLite), model and update files, and keys into a new folder; returns its size in bytes.

    The database is copied first: files are added before they are recorded, and none is dropped meanwhile, so each
    recorded one is there. Meanwhile the coordinator works on: nothing of this is done in the store's own thread.

    Raises:
        Conflict: The folder exists and is not empty, or cannot be written.
        StoreError: The copy cannot be written, as when the disk is full.
    """
    if env.held_releases is not None:
        raise Conflict("another backup is being made")
    env.held_releases = []
    try:
        return await asyncio.to_thread(_write, env, folder)
    except OSError as error:
        raise Conflict(
            f"the backup cannot be written into {folder} ({error.strerror or error}): name a folder that the "
            "coordinator's user may make, with room enough; under systemd one in its ReadWritePaths"
        ) from error
    finally:
        held, env.held_releases = env.held_releases, None
        await env.store.call(env.files.release, held)


def _write(env: Environment, folder: Path) -> int:
    """The record gets its name at the very end: what a killed coordinator leaves is no backup."""
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = folder / "unfinished"
    staged.mkdir(mode=0o700)
    try:
        _copy_files(env, folder, _copy_record(env, staged))
        (staged / DATABASE).replace(folder / DATABASE)
        staged.rmdir()
    except BaseException:
        _empty(folder)
        raise
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy_record(env: Environment, folder: Path) -> set[str]:
    """What the copy refers to: the record itself may have let some of it go by now."""
    made = open_store(f"sqlite:///{copy_database(env.store.store, folder)}")
    with contextlib.closing(made):
        return made.referenced_digests()


def _copy_files(env: Environment, folder: Path, digests: set[str]) -> None:
    for name in KEYS:
        source = env.config.data_dir / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
    target = folder / FILES
    target.mkdir(parents=True)
    for digest in sorted(digests):
        if env.files.has(digest):
            shutil.copyfile(env.files.path(digest), target / digest)


def restore(backup: Path, data_dir: Path, store_url: str | None = None) -> None:
    """Make a data directory from a backup; the coordinator started on it goes on from there.

    Args:
        backup: A folder that `back_up` made.
        data_dir: A new folder. It is empty again if anything fails.
        store_url: An empty database for the record; None: SQLite in the data directory.

    Raises:
        NotFound: This is not a backup.
        Conflict: The data directory exists and is not empty, or the database is not.
    """
    if not (backup / DATABASE).is_file() or not (backup / "keys").is_dir():
        raise NotFound(f"{backup} is not a backup: it has no {DATABASE} and keys")
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Conflict(f"{data_dir} is not empty; restore into a new folder")
    try:
        shutil.copytree(backup, data_dir, dirs_exist_ok=True)
        if store_url is not None:
            _move_record(data_dir, store_url)
    except BaseException:
        _empty(data_dir)
        raise


def _move_record(data_dir: Path, store_url: str) -> None:
    """The copy in the data directory goes: a coordinator started without --store would go on from it."""
    migrate(sqlite_url(data_dir))
    copy_store(sqlite_url(data_dir), store_url)
    drop_database(data_dir / DATABASE)


def _empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
