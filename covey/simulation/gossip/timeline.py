"""Virtual time: what happens when, whatever the real work takes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(order=True)
class _Entry:
    at: float
    order: int
    happen: Callable[[Any], None] = field(compare=False)
    work: asyncio.Task[Any] | None = field(compare=False)


class Timeline:
    """Things that happen at virtual times, one after the other; of those at one time, what was put in first.

    Work begins when it is put in, beside everything else, and what it leads to happens at its virtual time: so the
    order of things does not depend on how long work takes here.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[_Entry] = []
        self._orders = itertools.count()

    def after(self, delay: float, happen: Callable[[Any], None], work: asyncio.Task[Any] | None = None) -> None:
        """Let something happen.

        Args:
            delay: From now.
            happen: Called with what the work came to, or with None.
            work: Is waited for, if need be.
        """
        heapq.heappush(self._entries, _Entry(self.now + delay, next(self._orders), happen, work))

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Let things happen until it is over, or nothing is left. Raises what work raised."""
        while self._entries and not is_over():
            entry = heapq.heappop(self._entries)
            outcome = await entry.work if entry.work is not None else None
            self.now = max(self.now, entry.at)
            entry.happen(outcome)

    async def close(self) -> None:
        """Give up the work that is still going on."""
        tasks = [entry.work for entry in self._entries if entry.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
