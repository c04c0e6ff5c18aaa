"""Virtual time: what happens when, whatever the real work takes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

Happening = Callable[[Any], None]
Entry = tuple[float, int, Happening, "asyncio.Future[Any] | None"]
"""When, the how manieth that was put in, what happens, and the work that it waits for."""


class Timeline:
    """Things that happen at virtual times, one after the other; of those at one time, what was put in first.

    Work begins when it is put in, beside everything else, and what it leads to happens at its virtual time: so the
    order of things does not depend on how long work takes here.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[Entry] = []
        self._orders = itertools.count()

    def after(self, delay: float, happen: Happening, work: asyncio.Future[Any] | None = None) -> None:
        """Let something happen.

        Args:
            delay: From now.
            happen: Called with what the work came to, or with None.
            work: Is waited for, if need be.
        """
        heapq.heappush(self._entries, (self.now + delay, next(self._orders), happen, work))

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Let things happen until it is over, or nothing is left. Raises what work raised."""
        while self._entries and not is_over():
            at, _, happen, work = heapq.heappop(self._entries)
            outcome = await work if work is not None else None
            self.now = max(self.now, at)
            happen(outcome)

    async def close(self) -> None:
        """Give up the work that is still going on."""
        waiting = [work for _, _, _, work in self._entries if work is not None]
        for work in waiting:
            work.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
