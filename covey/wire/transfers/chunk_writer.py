"""Chunks from the event loop into a file: hashed and written in one thread, synced early in another.

All of that releases the interpreter's lock, so network, processor and disk work at the same time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from covey.artifact import Artifact

QUEUE_CHUNKS = 4
"""Chunks that may wait to be hashed and written while the next one arrives."""
WRITE_BACK_CHUNKS = 16
"""So many chunks are written before they are brought to the disk, while more arrive."""


class Spool(Protocol):
    """A file that is being received; `covey.storage.files.spool.Spool` says what each member does."""

    # ruff: noqa: D102

    @property
    def final(self) -> Path: ...
    @property
    def offset(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    def rewind(self, offset: int) -> None: ...
    def write(self, chunk: memoryview) -> None: ...
    def write_back(self) -> None: ...
    def finish(self) -> Path: ...
    def abandon(self) -> None: ...


class Files(Protocol):
    """Where files are received; `covey.storage.files.artifacts.ArtifactFiles`."""

    def begin(self, artifact: Artifact) -> Spool: ...


class SpoolWriter:
    """Puts chunks in order into a spool; an error in its body lets go of the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._jobs: deque[Future[None]] = deque()
        self._syncing: Future[None] | None = None
        self._unsynced = 0

    async def __aenter__(self) -> SpoolWriter:
        return self

    async def put(self, chunk: memoryview) -> None:
        """Queue the next chunk; raises what an earlier one raised."""
        while self._jobs and (len(self._jobs) >= QUEUE_CHUNKS or self._jobs[0].done()):
            await _result(self._jobs.popleft())
        self._jobs.append(self._thread.submit(self._take, chunk))
        self._write_back()

    def _take(self, chunk: memoryview) -> None:
        self._spool.write(chunk)
        if self._spool.complete:
            self._spool.finish()

    def _write_back(self) -> None:
        self._unsynced += 1
        if self._unsynced < WRITE_BACK_CHUNKS or (self._syncing is not None and not self._syncing.done()):
            return
        self._unsynced, self._syncing = 0, self._disk.submit(self._spool.write_back)

    async def finish(self) -> Path:
        """Wait until all is written and durable."""
        while self._jobs:
            await _result(self._jobs.popleft())
        await _result(self._thread.submit(self._spool.finish))
        return self._spool.final

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                # After the chunks that still wait: what arrived whole need not be sent again.
                await _result(self._thread.submit(self._spool.abandon))
        finally:
            self._thread.shutdown(wait=False)
            self._disk.shutdown(wait=False)


async def _result(job: Future[Any]) -> None:
    # Without an await where none is needed: waking the event loop from a thread is not free.
    if job.done():
        job.result()
    else:
        await asyncio.wrap_future(job)
