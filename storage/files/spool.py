"""A file that is being received: every chunk is checked before it is written, and the end is durable.

What a broken transfer leaves is the file itself (`<digest>.part`). Its valid length needs no record:
`covey.artifact.valid_prefix` measures it against the table of chunk digests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from covey.artifact import CHUNK_BYTES, Artifact
from covey.errors import CorruptChunk, DiskFull, Obstructed, StoreError, TransferError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FILES = (errno.EMFILE, errno.ENFILE)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> StoreError:
    """What an error at a file means: this machine must be mended (`Obstructed`), or it will not do (`StoreError`)."""
    if error.errno in _FULL:
        return DiskFull(f"no room for {path}{free_at(path)}: free space there, or raise this user's quota")
    if error.errno == errno.EROFS:
        return Obstructed(f"cannot write {path}: its disk is mounted read-only; mount it for writing again")
    if error.errno in _FILES:
        return Obstructed(f"cannot open {path}: too many files are open; raise LimitNOFILE (or ulimit -n)")
    return StoreError(f"cannot write {path}: {error.strerror or error}")


def obstruction(error: OSError) -> Obstructed | None:
    """The same of an error that names its file, or none; None: trying again would not help."""
    name = error.filename
    problem = disk_error(error, Path(os.fsdecode(name)) if isinstance(name, str | bytes) else Path("a file"))
    return problem if isinstance(problem, Obstructed) else None


def free_at(path: Path) -> str:
    """How much room its disk has, for a sentence; empty where that cannot be known."""
    try:
        return f" ({shutil.disk_usage(path.parent).free} bytes are free on its disk)"
    except OSError:
        return ""


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls that takes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_sized(part: Path, size_bytes: int) -> int:
    """Open a part with all its disk reserved: it cannot run out half-way, and is cheaper to fill."""
    with disk_errors(part):
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            now_bytes = os.fstat(fd).st_size
            if now_bytes > size_bytes:
                os.ftruncate(fd, size_bytes)
            elif now_bytes < size_bytes:
                os.posix_fallocate(fd, 0, size_bytes)
        except BaseException:
            os.close(fd)
            raise
        return fd


def check_size(path: Path, artifact: Artifact, *, sync: bool) -> None:
    """Whether a file has its artifact's size, and is on the disk where that is wanted; `StoreError` if not."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(fd).st_size
        if size_bytes != artifact.size_bytes:
            raise StoreError(f"{path} has {size_bytes} bytes, its artifact {artifact.size_bytes}")
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


class Spool:
    """One file on its way in; made by `covey.storage.files.artifacts.ArtifactFiles.begin`. Blocking, and thread-safe.

    Args:
        artifact: What the file must become.
        part: Where it grows.
        final: Its name once it is whole and durable.
        fd: `part`, open for writing; the spool closes it. -1: the file is here already, under its final name.
        offset: How many of its bytes are known to be right.
        durable: Whether `finish` waits for the disk.
        ended: Called once, when the spool no longer holds the file: finished, abandoned or taken over.
    """

    def __init__(
        self,
        artifact: Artifact,
        part: Path,
        final: Path,
        *,
        fd: int,
        offset: int,
        ended: Callable[[Spool], None],
        durable: bool = True,
    ) -> None:
        self.artifact, self.final = artifact, final
        self._part, self._fd, self._ended, self._durable = part, fd, ended, durable
        self._offset = self._synced = offset
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._why_closed, self._unsyncable = "", False

    @property
    def offset(self) -> int:
        """How many bytes are verified and written: where a sender goes on. 0 after a failed sync."""
        return 0 if self._unsyncable else self._offset

    @property
    def complete(self) -> bool:
        """Whether every byte is written (not yet: durable)."""
        return self._offset == self.artifact.size_bytes

    @property
    def finished(self) -> bool:
        """Whether the file has its final name."""
        return self._fd < 0 and not self._why_closed

    def rewind(self, offset: int) -> None:
        """Go back to an earlier chunk, for a sender that starts before `offset`.

        Raises:
            TransferError: Not the start of a chunk, or beyond what is here.
        """
        with self._lock:
            if not 0 <= offset <= self._offset or (offset % CHUNK_BYTES and offset != self._offset):
                raise TransferError(
                    f"cannot go on at byte {offset}: send from {self._offset}, or from a whole MiB before it"
                )
            self._check_open()
            self._offset = offset
            self._synced = min(self._synced, offset)

    def write(self, chunk: bytes | memoryview) -> None:
        """Check the next chunk and write it.

        Raises:
            CorruptChunk: It is not the announced chunk; nothing was written.
            TransferError: Another transfer of the same file took over.
            StoreError: The disk did not take it.
        """
        with self._lock:
            index = self._offset // CHUNK_BYTES
            wanted = self.artifact.chunk_size(index) if not self.complete else 0
            if len(chunk) != wanted or not wanted:
                raise CorruptChunk(f"chunk {index} has {len(chunk)} bytes, announced were {wanted}")
            if hashlib.sha256(chunk).digest() != self.artifact.chunk_digest(index):
                raise CorruptChunk(f"chunk {index} does not have the announced digest")
            self._check_open()
            with disk_errors(self._part):
                write_at(self._fd, chunk, self._offset)
            self._offset += wanted

    def write_back(self) -> None:
        """Bring what is written to the disk now, so that `finish` finds little left to wait for.

        May run beside `write` in another thread.
        """
        with self._sync_lock:
            until = self._offset
            if self._fd < 0 or until <= self._synced:
                return
            self._sync()
            self._synced = until

    def finish(self) -> Path:
        """Make the whole file durable under its final name: file synced, renamed, folder synced. Repeatable.

        Raises:
            TransferError: The file is not whole, or another transfer took over.
            StoreError: The disk refused.
        """
        with self._lock:
            if self.finished:
                return self.final
            self._check_open()
            if not self.complete:
                raise TransferError(f"the transfer ended after {self._offset} of {self.artifact.size_bytes} bytes")
            self._sync()
            with disk_errors(self._part):
                self._part.rename(self.final)
                if self._durable:
                    sync_folder(self.final.parent)
            self._close("")
        self._ended(self)
        return self.final

    def abandon(self, why: str = "the transfer was given up") -> None:
        """Let go of the file; what is there stays for the next attempt. Repeatable."""
        with self._lock:
            if self._fd < 0:
                return
            self._close(why)
        self._ended(self)

    def _sync(self) -> None:
        if not self._durable:
            return
        try:
            with disk_errors(self._part):
                os.fdatasync(self._fd)
        except StoreError:
            # The kernel reports a lost page once, and then holds it for written: only writing it again helps.
            self._unsyncable = True
            raise

    def _close(self, why: str) -> None:
        with self._sync_lock:
            os.close(self._fd)
            self._fd, self._why_closed = -1, why

    def _check_open(self) -> None:
        if self._fd < 0:
            raise TransferError(self._why_closed or "the file is complete already")
        if self._unsyncable:
            raise StoreError(f"the disk failed while {self._part} was synced; it must be sent again")
