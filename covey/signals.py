"""How a daemon is told to end: by SIGTERM or SIGINT, once or often, or by the end of who started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
UNTIL_STDIN_ENDS = "COVEY_UNTIL_STDIN_ENDS"
"""In a daemon's environment: its standard input is a pipe of whoever started it, and it ends when that does."""
STDIN = 0


@contextlib.contextmanager
def told_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Inside the context, entered in the main thread's running loop, each SIGTERM and SIGINT calls `stop` in that loop.

    So does the end of standard input where the environment asks for it: however a process ends, its pipes close.

    From its end on they are ignored until the process is gone: the loop's own handlers go with the loop, and a second
    signal then killed a daemon that had just ended well.
    """
    loop = asyncio.get_running_loop()

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    def ended() -> None:
        loop.remove_reader(STDIN)
        stop()

    for number in ENDING:
        signal.signal(number, tell)
    if os.environ.get(UNTIL_STDIN_ENDS):
        loop.add_reader(STDIN, ended)
    try:
        yield
    finally:
        loop.remove_reader(STDIN)
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
