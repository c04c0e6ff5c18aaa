"""Work that nobody waits for: what goes wrong with it is logged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from covey.errors import CoveyError

R = TypeVar("R")
log = structlog.get_logger(room="driver")


class Background:
    """The tasks that run in the background of one daemon."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        return not self._tasks

    def spawn(self, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
        """Do something in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, CoveyError):
            log.warning("background work failed", code=error.code, error=str(error))
        elif error is not None:
            log.error("background work failed", exc_info=error)
