"""Ending tasks: one that does not end when it is cancelled is cancelled again, and named; nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

log = structlog.get_logger(room="driver")
PATIENCE_S = 10.0
ATTEMPTS = 3


def heed() -> None:
    """Raise CancelledError where the running task was told to end, and what it awaited made another error of that.

    gRPC does, where a call fails in the moment in which its task is cancelled: with a peer that is just gone it was one
    cancellation in ten that came in such a moment. A loop that goes on after errors asks here before it does.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(tasks: Iterable[asyncio.Future[Any]], *, patience_s: float = PATIENCE_S) -> None:
    """Cancel tasks, and wait until they have ended, whatever they end with; at most `ATTEMPTS` times `patience_s`."""
    pending = {task for task in tasks if not task.done()}
    for _ in range(ATTEMPTS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=patience_s)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at: nobody else will
        if pending:
            log.warning("work that does not end when it is cancelled", work=sorted(map(place, pending)))


def place(task: asyncio.Future[Any]) -> str:
    """What a task is, and where it waits."""
    if not isinstance(task, asyncio.Task):
        return repr(task)
    name = getattr(task.get_coro(), "__qualname__", repr(task))
    frames = task.get_stack(limit=1)
    return f"{name} at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else str(name)
