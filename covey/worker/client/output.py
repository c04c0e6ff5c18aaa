"""What a worker prints, the user's code included, on its way into the log: at a bounded rate, into a bounded file.

The child writes into a pipe that the daemon always reads: it never waits for a slow disk, and never sees a full one.
What is too much is counted and left out, but for its end, which may say why the worker ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog
from typing_extensions import override

from covey.wire.listeners.buckets import Bucket

log = structlog.get_logger(room="worker")
AT_ONCE_BYTES, BYTES_PER_S = 1 << 20, 8192.0
"""How much of it is logged at once, and how much a second after that."""
TAIL_BYTES = 4096
"""Of what was left out so much of the end is kept, and written when there is room again, or the worker ends."""
AGAIN_BYTES = 1 << 16
"""Once something was left out, there is room again when there is room for so much: not for a line here and there."""
MAX_FILE_BYTES = 16 << 20
"""A file of that size becomes FILE.1, in place of the one before."""
STANDARD_ERROR = 2
OnOutput = Callable[[bytes], None]
"""Called on the event loop with what a worker printed; must not block."""


def unheard(data: bytes) -> None:
    """Nobody listens."""


class Output(asyncio.Protocol):
    """One worker's output.

    Args:
        target: The file that it is appended to; None: this process's standard error.
        on_output: Told what is logged, as it comes; what is left out it does not hear.
    """

    def __init__(self, target: Path | None, on_output: OnOutput = unheard) -> None:
        self._target, self._on_output = target, on_output
        self._room = Bucket(AT_ONCE_BYTES, BYTES_PER_S, AT_ONCE_BYTES, time.monotonic())
        self._left_out_bytes, self._tail, self._line_is_open, self._has_warned = 0, b"", False, False
        self._transport: asyncio.ReadTransport | None = None
        self._ended = asyncio.Event()

    async def open(self) -> int:
        """The end of the pipe that the child is to have; the caller closes its own copy.

        Raises:
            OSError: The file cannot be made.
        """
        if self._target is not None:
            self._target.open("ab").close()
        ours, theirs = os.pipe()
        try:
            await asyncio.get_running_loop().connect_read_pipe(lambda: self, os.fdopen(ours, "rb", buffering=0))
        except BaseException:
            os.close(theirs)
            raise
        return theirs

    async def close(self, patience_s: float = 0.0) -> None:
        """Read no more. What the child has forked may hold the pipe open: its end is waited for only so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), patience_s)
        if self._transport is not None:
            self._transport.close()
        self._go_on()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        needed = len(data) + (AGAIN_BYTES if self._left_out_bytes else 0)
        if self._room.refill(now) < needed:
            self._leave_out(data)
            return
        self._room.take(now, len(data) + len(self._tail))
        self._go_on()
        self._write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        self._ended.set()

    def _leave_out(self, data: bytes) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("a worker prints too much: what is more is left out", bytes_per_s=int(BYTES_PER_S))
        self._left_out_bytes += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def _go_on(self) -> None:
        """Say how much was left out, if anything was, and write its end."""
        if self._left_out_bytes:
            lost_bytes, tail = self._left_out_bytes - len(self._tail), self._tail
            self._left_out_bytes, self._tail = 0, b""
            begin = "\n" if self._line_is_open else ""
            notice = f"{begin}[{lost_bytes} bytes of output are left out here]\n" if lost_bytes else ""
            self._write(notice.encode() + tail)

    def _write(self, data: bytes) -> None:
        self._line_is_open = not data.endswith(b"\n")
        self._on_output(data)
        with contextlib.suppress(OSError):  # a full disk, a log that nobody reads: no reason to stop training
            if self._target is None:
                _write_all(STANDARD_ERROR, data)
                return
            with contextlib.suppress(FileNotFoundError):
                if self._target.stat().st_size + len(data) > MAX_FILE_BYTES:
                    self._target.replace(self._target.with_name(f"{self._target.name}.1"))
            with self._target.open("ab", buffering=0) as file:
                _write_all(file.fileno(), data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
