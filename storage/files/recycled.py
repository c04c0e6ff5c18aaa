"""Dropped files, kept to be written over: with blocks and cached pages there, that is a third cheaper."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path


class FreeFiles:
    """A bounded pool of files, named `<size>-<n>` in one folder; their content means nothing. Thread-safe.

    Args:
        folder: Where they are; made if it is missing. What is there from before is used.
        max_same_size: How many files of one size are kept.
        max_files: How many are kept in all; beyond, the longest unused one is deleted.
    """

    def __init__(self, folder: Path, *, max_same_size: int = 16, max_files: int = 32) -> None:
        self._folder, self._max_same_size, self._max_files = folder, max_same_size, max_files
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._files: dict[Path, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            self.put(path, path.stat().st_size)

    @property
    def bytes_used(self) -> int:
        """The disk that they take."""
        with self._lock:
            return sum(self._files.values())

    def take(self, size_bytes: int, target: Path) -> bool:
        """Give a file of exactly this size the name `target`, if there is one."""
        with self._lock:
            # The newest one's pages are most likely still in memory.
            path = next((path for path, size in reversed(self._files.items()) if size == size_bytes), None)
            if path is None:
                return False
            path.rename(target)
            del self._files[path]
            return True

    def put(self, path: Path, size_bytes: int) -> None:
        """Take over a file that nobody needs any more; one that is too many is deleted."""
        with self._lock:
            same = sum(size == size_bytes for size in self._files.values())
            if not size_bytes or same >= self._max_same_size:
                path.unlink(missing_ok=True)
                return
            name = self._folder / f"{size_bytes}-{next(self._numbers)}"
            while name.exists() and name != path:
                name = self._folder / f"{size_bytes}-{next(self._numbers)}"
            path.rename(name)
            self._files[name] = size_bytes
            if len(self._files) > self._max_files:
                self._delete_oldest()

    def shrink(self, max_bytes: int) -> None:
        """Delete files, longest unused first, until they take at most so much."""
        with self._lock:
            while self._files and sum(self._files.values()) > max_bytes:
                self._delete_oldest()

    def _delete_oldest(self) -> None:
        path = next(iter(self._files))
        del self._files[path]
        path.unlink(missing_ok=True)
