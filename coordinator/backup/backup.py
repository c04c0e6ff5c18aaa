"""A consistent copy of a coordinator's data directory, made while it runs, and its way back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from covey import faults
from covey.coordinator.backup.durable import copy_any, copy_file
from covey.coordinator.backup.ownership import FILE, UNFINISHED
from covey.coordinator.config import DATABASE, sqlite_url
from covey.coordinator.runs.retention import Retention
from covey.coordinator.store_thread import StoreThread
from covey.driver.background import Background
from covey.errors import Conflict, NotFound
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.data_lock import LOCK_FILE
from covey.storage.files.spool import sync_folder
from covey.storage.sql.backup import copy_database, digests_in, drop_database
from covey.storage.sql.copy import copy_store
from covey.storage.sql.store import migrate

KEYS = ("keys", "admin")
FILES = Path("files") / "artifacts"
log = structlog.get_logger(room="coordinator")


@dataclass(frozen=True)
class BackupServices:
    """What a backup is made of, and with."""

    data_dir: Path
    store: StoreThread
    files: ArtifactFiles
    retention: Retention
    background: Background


async def back_up(services: BackupServices, folder: Path) -> int:
    """Write record (as SQLite), model and update files, and keys into a new folder; returns its size in bytes.

    The database is copied first: files are added before they are recorded, and none is dropped meanwhile, so each
    recorded one is there. Meanwhile the coordinator works on: nothing of this is done in the store's own thread.
    If the caller goes away, the backup is still finished.

    Raises:
        Conflict: The folder exists and is not empty, or cannot be written.
        NotFound: A file is gone that the record names.
        StoreError: The copy cannot be written, as when the disk is full.
        StoreUnavailable: The database is away.
    """
    services.retention.hold()
    return await asyncio.shield(services.background.spawn(_back_up(services, folder)))


async def _back_up(services: BackupServices, folder: Path) -> int:
    given_up = threading.Event()
    try:
        size = await asyncio.to_thread(_write, services, folder, given_up)
    except asyncio.CancelledError:
        # The coordinator ends. What is held stays, as it may just be read; the next start drops it.
        given_up.set()
        raise
    except BaseException:
        await services.store.alone(services.retention.let_go, services.store.store)
        raise
    await services.store.alone(services.retention.let_go, services.store.store)
    log.info("a backup was made", folder=str(folder), bytes=size)
    return size


def _write(services: BackupServices, folder: Path, given_up: threading.Event) -> int:
    def check() -> None:
        if given_up.is_set():
            raise Conflict(f"the coordinator stops: there is no backup in {folder}")

    advice = "name a folder that the coordinator's user may make, with room enough; under systemd one in its "
    with _refused(f"the backup cannot be written into {folder}", advice + "ReadWritePaths"):
        return _write_whole(services, folder, check)


def _write_whole(services: BackupServices, folder: Path, check: Callable[[], None]) -> int:
    """The record gets its name at the very end: what a killed coordinator leaves is no backup."""
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = folder / "unfinished"
    staged.mkdir(mode=0o700)
    try:
        record = copy_database(services.store.store, staged)
        record.chmod(0o600)
        _copy_files(services, folder, digests_in(record), check)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        sync_folder(folder)
        check()
        record.replace(folder / DATABASE)
        staged.rmdir()
        _sync_with_parent(folder)
    except BaseException:
        _empty(folder)
        raise
    return size


def _copy_files(services: BackupServices, folder: Path, digests: set[str], check: Callable[[], None]) -> None:
    """What the copied record refers to: the record itself may have let some of it go by now."""
    for name in (*KEYS, FILE):
        copy_any(services.data_dir / name, folder / name, check)
    target = folder / FILES
    for path in (target.parent, target):  # mkdir gives parents another mode
        path.mkdir(mode=0o700)
    try:
        for digest in sorted(digests):
            services.files.hold(folder, [digest])
            _copy_held(services.files, digest, target, check)
    finally:
        services.files.hold(folder, ())
    _sync_with_parent(target)


def _copy_held(files: ArtifactFiles, digest: str, target: Path, check: Callable[[], None]) -> None:
    if not (files.path(digest).exists() or files.check(digest)):
        raise NotFound(
            f"there is no whole backup: the record names the file {digest}, and {files.path(digest)} is "
            "gone; look for others with: covey store check"
        )
    copy_file(files.path(digest), target / digest, check)


def restore(backup: Path, data_dir: Path, store_url: str | None = None) -> None:
    """Make a data directory from a backup; the coordinator started on it goes on from there.

    Everything is copied into a folder in it, from which it gets its place at the very end: until then no coordinator
    starts there (`covey.coordinator.backup.ownership.check_folder`), and a restore that was killed can be given again.

    Args:
        backup: A folder that `back_up` made.
        data_dir: A new or empty folder, or what a killed restore left. It is empty again if anything fails.
        store_url: An empty database for the record; None: SQLite in the data directory.

    Raises:
        NotFound: This is not a backup.
        Conflict: The data directory exists and is not empty, or the database is not, or something cannot be written.
    """
    if not (backup / DATABASE).is_file() or not (backup / "keys").is_dir():
        raise NotFound(f"{backup} is not a backup: it has no {DATABASE} and keys")
    if data_dir.resolve().is_relative_to(backup.resolve()):
        raise Conflict(f"{data_dir} is in the backup itself; restore into another folder")
    with _refused(f"{backup} cannot be restored into {data_dir}", "mend that, and give the command again"):
        _check_empty(backup, data_dir)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _empty(data_dir)
        try:
            _fill(backup, data_dir, store_url)
        except BaseException:
            _empty(data_dir)
            raise


def _check_empty(backup: Path, data_dir: Path) -> None:
    present = {path.name for path in data_dir.iterdir()} - {LOCK_FILE} if data_dir.exists() else set()
    if not present:
        return
    ours = {UNFINISHED, *(path.name for path in backup.iterdir()), "keys"}
    if UNFINISHED not in present or present - ours:
        raise Conflict(f"{data_dir} is not empty; restore into a new folder")


def _fill(backup: Path, data_dir: Path, store_url: str | None) -> None:
    staged = data_dir / UNFINISHED
    staged.mkdir(mode=0o700)
    _sync_with_parent(data_dir)
    for path in sorted(backup.iterdir()):
        copy_any(path, staged / path.name)
    if store_url is not None:
        _move_record(staged, store_url)
    sync_folder(staged)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == DATABASE):
        path.rename(data_dir / path.name)
        faults.reach("restored-entry")
    sync_folder(data_dir)
    staged.rmdir()
    sync_folder(data_dir)


def _move_record(staged: Path, store_url: str) -> None:
    """The copy in the data directory goes: a coordinator started without --store would go on from it."""
    migrate(sqlite_url(staged))
    copy_store(sqlite_url(staged), store_url)
    drop_database(staged / DATABASE)


@contextlib.contextmanager
def _refused(what: str, advice: str) -> Iterator[None]:
    """Say what the operating system refused."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise Conflict(f"{what} ({error.strerror or error}{where}): {advice}") from error


def _sync_with_parent(folder: Path) -> None:
    sync_folder(folder)
    with contextlib.suppress(PermissionError):  # one of the system's, which this user may not read
        sync_folder(folder.parent)


def _empty(folder: Path) -> None:
    """The mark of a restore that has not ended goes last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == UNFINISHED) if folder.exists() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
