"""Files and folders copied so that nobody else can read them at any moment, and so that they outlive a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from covey import faults
from covey.storage.files.spool import sync_folder

BLOCK_BYTES = 4 << 20


def _go_on() -> None:
    pass


def copy_file(source: Path, target: Path, check: Callable[[], None] = _go_on) -> None:
    """Copy a file, mode 0600 from its first byte; the caller sees to the folder that it is in.

    Args:
        source: A file, or a link to one.
        target: What must not exist.
        check: Asked before each block; what it raises ends the copying.

    Raises:
        OSError: It cannot be read or written.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as original, os.fdopen(descriptor, "wb", buffering=0) as copy:
        while block := original.read(BLOCK_BYTES):
            check()
            _write(copy.fileno(), block)
        os.fsync(copy.fileno())
    faults.reach("file-copied")


def _write(descriptor: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(descriptor, left) :]


def copy_tree(source: Path, target: Path, check: Callable[[], None] = _go_on) -> None:
    """Copy a folder with all that is in it, each folder with mode 0700; the rest as `copy_file`."""
    target.mkdir(mode=0o700)
    for path in sorted(source.iterdir()):
        copy_any(path, target / path.name, check)
    sync_folder(target)


def copy_any(source: Path, target: Path, check: Callable[[], None] = _go_on) -> None:
    """Copy a file or a folder; what is neither is left out."""
    if source.is_dir():
        copy_tree(source, target, check)
    elif source.is_file():
        copy_file(source, target, check)
