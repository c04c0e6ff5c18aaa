"""Small files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from covey.storage.files.spool import disk_errors, sync_folder


def write_durably(path: Path, text: str) -> None:
    """Replace a file: all of it is there after a power cut, or what was there before. Blocking.

    Raises:
        StoreError: The disk is full, or refuses; what was there before is there.
    """
    replace_file(path, text, synced=True)
    with disk_errors(path):
        sync_folder(path.parent)


def replace_file(path: Path, text: str, *, synced: bool = False) -> None:
    """Replace a file: all of it is there after a crash of this process, or what was there before. Blocking."""
    temporary = path.with_suffix(".tmp")
    with disk_errors(path):
        try:
            with temporary.open("w") as file:
                file.write(text)
                if synced:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
