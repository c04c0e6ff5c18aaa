"""One daemon at a time on a node's data directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from covey.errors import Conflict
from covey.storage.files.lock import FileLock

LOCK = "node.lock"


@contextmanager
def alone(data_dir: Path, what: str) -> Iterator[None]:
    """Hold a node's data directory.

    Args:
        data_dir: The node's.
        what: What is to be done, for the refusal: "the node cannot start".

    Raises:
        Conflict: A daemon runs on it.
        StoreError: The folder cannot be written to.
    """
    lock = FileLock(data_dir / LOCK)
    if not lock.take():
        raise Conflict(f"{what}: a node runs on {data_dir}; stop it first (Ctrl-C, or SIGTERM to its process)")
    try:
        yield
    finally:
        lock.release()
