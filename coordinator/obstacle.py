"""What this machine cannot do until somebody has mended it: said once, waited for, and tried again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from covey.errors import CoveyError, Obstructed, StoreError, StoreUnavailable
from covey.storage.files.spool import obstruction

R = TypeVar("R")
RETRY_S = 1.0
SAY_EVERY_S = 30.0
CURRENT_S = 15.0
"""So long after a node's update met one it is shown, unless one came through: tries come more often."""
log = structlog.get_logger(room="coordinator")


class Obstacle:
    """The newest of them, and the way past any: a full or read-only disk, too many open files, a database that is away.

    Args:
        clock: Seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, str] = {}
        """What waits now, and for what."""
        self._text, self._met_at = "", -math.inf
        self._said, self._said_at = "", -math.inf

    @property
    def text(self) -> str:
        """What is in the way now, in words; empty: nothing."""
        recent = self._text if self._clock() - self._met_at < CURRENT_S else ""
        return next(reversed(self._waiting.values()), recent)

    def met(self, error: CoveyError) -> None:
        """Something could not be done, and a node will try again: an obstacle is shown for a while."""
        if isinstance(error, Obstructed | StoreUnavailable):
            self._text, self._met_at = str(error), self._clock()
            self._say(error)

    def over(self) -> None:
        """A node's update came through: what one met before is not in the way any more."""
        self._met_at = -math.inf

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """The same, of what a block raises."""
        try:
            yield
        except CoveyError as error:
            self.met(error)
            raise

    def _say(self, error: StoreError) -> None:
        """Say it if its kind is new, and now and then."""
        if error.code == self._said and self._clock() < self._said_at + SAY_EVERY_S:
            return
        self._said, self._said_at = error.code, self._clock()
        away = isinstance(error, StoreUnavailable)
        what = "the database is away; trying again" if away else "this machine is in the way; trying again"
        log.warning(what, error=str(error), retry_s=RETRY_S)

    async def passed(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do something that can be repeated; while something is in its way, wait for that."""
        ticket = object()
        try:
            while True:
                try:
                    return await work()
                except (StoreUnavailable, Obstructed) as error:
                    obstacle: StoreError = error
                except OSError as error:
                    if (obstructed := obstruction(error)) is None:
                        raise
                    obstacle = obstructed
                self._say(obstacle)
                self._waiting[ticket] = str(obstacle)
                await asyncio.sleep(RETRY_S)
        finally:
            self._waiting.pop(ticket, None)
