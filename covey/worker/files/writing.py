"""Writing the worker's files: hashed in the pass that writes them, synced, and overlapped with computing."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from covey.artifact import CHUNK_BYTES, WRITE_BACK_BYTES, Artifact, begin_write_back
from covey.storage.files.spool import disk_errors, write_at

DEPTH = 2
"""Blocks that may wait to be written while the next one is computed."""


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    values: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(values)


class ArtifactWriter:
    """Writes a file from front to back over whatever was there, hashing its chunks as they go by.

    An existing file is overwritten in place (writing into allocated blocks is several times faster than into
    a fresh file) and cut at the end if it was longer. As a context manager it closes the descriptor in any
    case; `close` makes the file whole. Each method raises `StoreError` where the disk is full, or refuses.

    Args:
        path: The file.
        synced: Whether `close` waits for the disk: not where whoever asked for the file sees to that, or needs it not.
        hashed: Whether it is hashed: not where it stays on this machine, for the next job; then it has no digest.
    """

    def __init__(self, path: Path, *, synced: bool = True, hashed: bool = True) -> None:
        self._synced, self._hashed, self._begun = synced, hashed, 0
        self._path = path
        with disk_errors(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._table = bytearray()
        self._chunk = hashlib.sha256()

    def write(self, data: memoryview) -> None:
        """Append bytes; pieces may be of any size."""
        data = data.cast("B")
        at = 0
        while at < len(data):
            piece = data[at : at + CHUNK_BYTES - self._size % CHUNK_BYTES]
            if self._hashed:
                self._chunk.update(piece)
            with disk_errors(self._path):
                write_at(self._fd, piece, self._size)
            at, self._size = at + len(piece), self._size + len(piece)
            if self._hashed and self._size % CHUNK_BYTES == 0:
                self._end_chunk()
        if self._synced and self._size - self._begun >= WRITE_BACK_BYTES:
            begin_write_back(self._fd, self._begun, self._size)
            self._begun = self._size

    def _end_chunk(self) -> None:
        self._table += self._chunk.digest()
        self._chunk = hashlib.sha256()

    def close(self) -> Artifact:
        """Make the file durable, if it is to be (its directory entry is the caller's), and say what is in it."""
        if self._hashed and self._size % CHUNK_BYTES:
            self._end_chunk()
        with disk_errors(self._path):
            if os.fstat(self._fd).st_size > self._size:
                os.ftruncate(self._fd, self._size)
            if self._synced:
                os.fsync(self._fd)
        self.abandon()
        digest = hashlib.sha256(self._table).hexdigest() if self._hashed else ""
        return Artifact(digest, self._size, bytes(self._table))

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


class Overlap:
    """Does work in order in one thread while the caller computes on; at most `DEPTH` pieces wait.

    Hashing and writing release the interpreter's lock, so both cores are used. A single piece has nothing to overlap
    with: it is done by the caller at the end, and no thread is started.
    """

    def __init__(self) -> None:
        self._first: Callable[[], None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        """Queue a piece of work; raises what an earlier piece raised."""
        if self._thread is None and self._first is None:
            self._first = work
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        if self._first is not None:
            self._pending.append(self._thread.submit(self._first))
            self._first = None
        if len(self._pending) >= DEPTH:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(work))

    def __enter__(self) -> Overlap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._first is not None and error is None:
                self._first()
            while self._pending and error is None:
                self._pending.popleft().result()
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=True, cancel_futures=True)
