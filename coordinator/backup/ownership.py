"""A data directory remembers which record its files belong to: with another one they would be deleted.

A coordinator drops the files that its record does not name. Started by mistake on an empty database, on another
federation's, or on a copy from before a move, it would drop every model. So a random id is in the record and, with the
newest lease number, in `record.json`; the record gets it first, so that the file never knows one that no record has.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from covey.coordinator.config import DATABASE
from covey.errors import Conflict
from covey.storage.files.spool import disk_errors
from covey.storage.sql.store import SqlStore
from covey.validation import explain
from covey.wire.identities.authority import write_private

FILE = "record.json"
UNFINISHED = "unfinished-restore"
"""The folder in a data directory into which a restore copies; while it is there, the restore has not ended."""
SETTING = "record-id"
_ASK = "is --store (COVEY_STORE) missing, or another one?"


class Note(BaseModel):
    """What `record.json` holds."""

    model_config = ConfigDict(strict=True, frozen=True)

    lease: int
    record: str = ""
    """The record's id; empty: written by a version that had none."""


def take_over(store: SqlStore, data_dir: Path, holder: str) -> None:
    """Become the one coordinator of a record, if the files here are its own. Blocking.

    Raises:
        Conflict: They are another record's or a newer copy's, and nothing was changed; or another coordinator runs.
    """
    check_record(data_dir, store.setting(SETTING), store.database.lease_number())
    lease = store.acquire_lease(holder)
    record = store.setting(SETTING)
    if record is None:
        record = secrets.token_hex(16)
        store.set_setting(SETTING, record)
    note_record(data_dir, record, lease)


def check_folder(data_dir: Path) -> None:
    """Look, before anything is made in a data directory, whether it is whole or new.

    Raises:
        Conflict: A restore into it was interrupted, or its keys are gone: it would become a new federation.
    """
    if (data_dir / UNFINISHED).exists():
        raise Conflict(
            f"a restore into {data_dir} was interrupted, or still goes on: give the same command again "
            f"(covey coordinator restore BACKUP --data-dir {data_dir})"
        )
    used = [name for name in (FILE, DATABASE, "files") if (data_dir / name).exists()]
    if used and not (data_dir / "keys" / "authority.key").exists():
        raise Conflict(
            f"{data_dir} was used ({', '.join(used)}), but its keys/authority.key is gone: put keys/ back, or restore "
            "a backup into a new folder; for a new federation name a new folder"
        )


def check_record(data_dir: Path, record: str | None, lease_number: int) -> None:
    """Compare a record with the one that these files were last used with.

    Args:
        data_dir: Where the files are.
        record: The record's id; None: it has none.
        lease_number: Of its newest lease; 0: no coordinator was ever started on it, or there is no database yet.

    Raises:
        Conflict: It is another record, or an older copy; nothing was changed.
    """
    known = read_note(data_dir)
    if known is None:
        _check_files(data_dir, lease_number)
        return
    if known.record and record != known.record:
        raise Conflict(
            f"this database holds another record than that of {data_dir}: {_ASK} With it, every model there would be "
            f"deleted. If it is the right one all the same, delete {data_dir / FILE}"
        )
    if lease_number < known.lease:
        raise Conflict(
            f"this database is not the one that {data_dir} was last used with, or an old copy of it (lease number "
            f"{lease_number}, the files know {known.lease}): {_ASK} "
            f"If you did put back an older database, restore the files with it, or delete {data_dir / FILE}"
        )


def _check_files(data_dir: Path, lease_number: int) -> None:
    """Files are recorded under a lease: they cannot belong to a record that never had one."""
    artifacts = data_dir / "files" / "artifacts"
    if lease_number == 0 and artifacts.is_dir() and any(artifacts.iterdir()):
        raise Conflict(
            f"this database is empty, but {artifacts} holds models, which would be deleted: {_ASK} "
            "For a new federation name a new folder"
        )


def read_note(data_dir: Path) -> Note | None:
    """What a data directory knows of its record; None: nothing yet.

    Raises:
        Conflict: The note cannot be read.
    """
    path = data_dir / FILE
    try:
        return Note.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        problem = explain(error, Note) if isinstance(error, ValidationError) else str(error)
        raise Conflict(
            f"{path} cannot be read ({problem}): it should say which record the files here belong to. If --store "
            "(COVEY_STORE) names the right database, delete it, and it is made again"
        ) from error


def note_record(data_dir: Path, record: str, lease_number: int) -> None:
    """Note, durably, the record and the lease under which the files are used from now on."""
    path = data_dir / FILE
    with disk_errors(path):
        write_private(path, Note(lease=lease_number, record=record).model_dump_json().encode())
