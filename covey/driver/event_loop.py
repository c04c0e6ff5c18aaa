"""The event loop of the daemons: libuv's, in which a callback, a timer and a read cost a fraction of asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

R = TypeVar("R")


def run(main: Coroutine[Any, Any, R]) -> R:
    """Run a daemon from its beginning to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
