"""What this machine cannot do until somebody has mended it: said once, waited for, and tried again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from operator import itemgetter
from typing import TypeVar

import structlog

from covey.errors import CoveyError, Obstructed, StoreError, StoreUnavailable
from covey.storage.files.spool import obstruction

R = TypeVar("R")
RETRY_S = 1.0
SAY_EVERY_S = 30.0
CURRENT_S = 15.0
"""So long after a node's update met one it is shown, unless one of its run came through: tries come more often."""
log = structlog.get_logger(room="coordinator")


class Obstacle:
    """What is in a run's way, and the way past: a full or read-only disk, too many open files, a database that is away.

    Args:
        clock: Seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, str] = {}
        """What waits now, and for what."""
        self._met: dict[str, tuple[str, float]] = {}
        """What the newest update of a run met, and when; of "": one that was not known to be of any."""
        self._said, self._said_at = "", -math.inf

    def text(self, run: str) -> str:
        """What is in the way of a run now, or of anything that waits here, in words; empty: nothing."""
        if self._waiting:
            return next(reversed(self._waiting.values()))
        text, at = max((self._met.get(key, ("", -math.inf)) for key in ("", run)), key=itemgetter(1))
        return text if self._clock() - at < CURRENT_S else ""

    def met(self, error: CoveyError, run: str = "") -> None:
        """A node's update of a run could not be taken, and will come again: what it met is shown there for a while."""
        if isinstance(error, Obstructed | StoreUnavailable):
            now = self._clock()
            self._met = {other: met for other, met in self._met.items() if met[1] > now - CURRENT_S}
            self._met[run] = str(error), now
            self._say(error)

    def over(self, run: str) -> None:
        """A node's update of a run came through: what one met there before is not in the way any more."""
        self._met.pop("", None)
        self._met.pop(run, None)

    @contextlib.contextmanager
    def noted(self, run: str) -> Iterator[None]:
        """As `met`, of what a block raises."""
        try:
            yield
        except CoveyError as error:
            self.met(error, run)
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
