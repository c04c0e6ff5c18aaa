"""A lock on a file: gone at once when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from covey.errors import StoreError


class FileLock:
    """An exclusive flock. No child process inherits it.

    Args:
        path: Of the lock file, which stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take the lock, or say that another process has it. Taking it again changes nothing.

        Raises:
            StoreError: The lock file cannot be made.
        """
        if self._file is not None:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be made ({error.strerror}): give this user the right to write there"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let the lock go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
