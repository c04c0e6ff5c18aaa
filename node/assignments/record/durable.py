"""Small files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Replace a file: all of it is there after a power cut, or what was there before. Blocking."""
    replace_file(path, text, synced=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_file(path: Path, text: str, *, synced: bool = False) -> None:
    """Replace a file: all of it is there after a crash of this process, or what was there before. Blocking."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
