"""A data directory remembers how new the record is that its files belong to: with an older one they would be deleted.

A coordinator drops the files that its record does not name. Started by mistake on an empty database, or on one from
before a move to another, it would drop every model.
"""

from __future__ import annotations

import json
from pathlib import Path

from covey.errors import Conflict
from covey.wire.authority import write_private

FILE = "record.json"
LEASE = "lease"


def check_record(data_dir: Path, lease_number: int) -> None:
    """Compare the newest lease of a record with that under which these files were last used.

    Raises:
        Conflict: The record is older than the files; nothing was changed.
    """
    path = data_dir / FILE
    if not path.is_file():
        return
    known = int(json.loads(path.read_text())[LEASE])
    if lease_number < known:
        raise Conflict(
            f"this database is not the one that {data_dir} was last used with, or an old copy of it (lease number "
            f"{lease_number}, the files know {known}): is --store (COVEY_STORE) missing, or another one? "
            f"If you did put back an older database, restore the files with it, or delete {path}"
        )


def note_record(data_dir: Path, lease_number: int) -> None:
    """Note, durably, the lease under which the files are used from now on."""
    write_private(data_dir / FILE, json.dumps({LEASE: lease_number}).encode())
