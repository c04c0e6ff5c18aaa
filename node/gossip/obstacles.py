"""What this machine cannot do just now: said, waited for, and tried again. Nothing that was begun is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from covey.errors import Obstructed, StoreError
from covey.storage.files.spool import obstruction

R = TypeVar("R")
log = structlog.get_logger(room="gossip")
RETRY_S = 1.0


class Obstacles:
    """Of one node, by what they are in the way of: "train", "record", ...

    Args:
        retry_s: After how long something is tried again.
    """

    def __init__(self, retry_s: float = RETRY_S) -> None:
        self._standing: dict[str, str] = {}
        self._retry_s = retry_s

    @property
    def reason(self) -> str:
        """What is in the way now; empty: nothing."""
        return "; ".join(dict.fromkeys(self._standing.values()))

    def stands(self, what: str) -> bool:
        """Whether something cannot be done now."""
        return what in self._standing

    def met(self, what: str, error: StoreError) -> None:
        """Something cannot be done now; it will be tried again."""
        text = str(error)
        if self._standing.get(what) != text:
            log.warning("this machine is in the way; trying again", what=what, error=text, retry_s=self._retry_s)
        self._standing[what] = text

    def gone(self, what: str) -> None:
        """Something could be done."""
        if self._standing.pop(what, None) is not None:
            log.info("this machine is not in the way any more", what=what)

    def now(self, what: str, error: StoreError | None) -> None:
        """Something cannot be done now, or (None) it can."""
        if error is None:
            self.gone(what)
        else:
            self.met(what, error)

    async def passed(self, what: str, work: Callable[[], Awaitable[R]]) -> R:
        """Do something that can be repeated; while this machine is in the way of it, say so and try again."""
        while True:
            try:
                result = await work()
            except Obstructed as error:
                obstacle = error
            except OSError as error:
                if (obstructed := obstruction(error)) is None:
                    raise
                obstacle = obstructed
            else:
                self.gone(what)
                return result
            self.met(what, obstacle)
            await asyncio.sleep(self._retry_s)
