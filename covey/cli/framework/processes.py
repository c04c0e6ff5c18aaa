"""What a command asks of its own process: to be ended by signals as by Ctrl-C, and to take little memory."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does, so that what it started is ended too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def tame_malloc() -> None:
    """Keep glibc to one malloc arena in this process, and give large blocks back to the system at once.

    Else the arenas of gRPC's threads, and the heap between 1 MiB messages, keep what a burst of transfers took. What
    the environment says (MALLOC_ARENA_MAX) goes first; without glibc it does nothing.
    """
    import ctypes

    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            for option, value in ((arena_max, 1), (mmap_threshold, 256 << 10), (trim_threshold, 1 << 20)):
                libc.mallopt(option, value)
