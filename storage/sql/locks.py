"""The lock of the one coordinator: gone at once when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, exc, func, select

from covey.errors import StoreError

ADVISORY_KEY = 0x636F766579
"""Of PostgreSQL's advisory lock, which is one for each database ("covey" in ASCII)."""
PATIENCE_MS = 1000
"""How long PostgreSQL may take to notice that the process before this one is dead."""
LOCK_TIMEOUT = "55P03"
"""PostgreSQL's code where a lock was not had in time."""


class FileLock:
    """An exclusive flock on `DATABASE.lock`. No child process inherits it."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}.lock")
        self._file: int | None = None

    def take(self, connection: Connection) -> bool:
        """Take the lock, or say that another one has it. Taking it again changes nothing.

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


class AdvisoryLock:
    """PostgreSQL's session lock: the connection that took it holds it until the connection ends."""

    def take(self, connection: Connection) -> bool:
        """Take the lock on this connection, or say that another one has it."""
        try:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
            connection.execute(select(func.pg_advisory_lock(ADVISORY_KEY)))
            connection.commit()
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_TIMEOUT:
                raise
            connection.rollback()
            return False
        return True

    def release(self) -> None:
        """Nothing to do: it goes with its connection."""
