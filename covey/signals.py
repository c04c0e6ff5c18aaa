"""How a daemon is told to end: by SIGTERM or SIGINT, once or often."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def told_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Inside the context, entered in the main thread's running loop, each SIGTERM and SIGINT calls `stop` in that loop.

    From its end on they are ignored until the process is gone: the loop's own handlers go with the loop, and a second
    signal then killed a daemon that had just ended well.
    """
    loop = asyncio.get_running_loop()

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    for number in ENDING:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
