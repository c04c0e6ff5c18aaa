"""One daemon a data directory: two would write over each other's files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from covey.errors import Conflict, StoreError

LOCK_FILE = "daemon.lock"


@contextlib.contextmanager
def held(data_dir: Path, what: str) -> Iterator[None]:
    """Hold a data directory's lock inside the context; it is gone at once when the process dies, however it dies.

    Args:
        data_dir: The directory; made if it is missing.
        what: What runs in it: `node` or `coordinator`.

    Raises:
        Conflict: Another daemon has it; the message names its process.
        StoreError: The lock file cannot be written.
    """
    path = data_dir / LOCK_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        text = f"{data_dir} cannot be used ({error.strerror}): give this user the right to write there"
        raise StoreError(text) from error
    try:
        _take(file, data_dir, what)
        yield
    finally:
        os.close(file)


def _take(file: int, data_dir: Path, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 100, 0).decode(errors="replace").strip() or "unknown"
        raise Conflict(
            f"{data_dir} is in use by another daemon (process {holder}); stop that one, or give this {what} a "
            "--data-dir of its own"
        ) from None
    with contextlib.suppress(OSError):  # a full disk: then nobody is told the number
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
