"""The store behind one worker thread, so that no SQL runs on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from covey.coordinator.obstacle import Obstacle
from covey.errors import StoreUnavailable
from covey.storage.record.contract import Store

P = ParamSpec("P")
R = TypeVar("R")


class StoreThread:
    """The store, each call of which is made in its thread, one after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.up = True
        """Whether the database could be reached when it was last asked."""
        self.obstacle = Obstacle()
        self.on_call: Callable[[float], object] | None = None
        """Told the seconds that each call took, in the store's thread."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one method of the store; its errors come out here."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._timed(lambda: method(*args, **kwargs))
            )
        except StoreUnavailable:
            self.up = False
            raise
        self.up = True
        return result

    async def alone(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run something in the store's thread that asks no database: nothing else is done there meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def _timed(self, work: Callable[[], R]) -> R:
        began = time.perf_counter()
        try:
            return work()
        finally:
            if self.on_call is not None:
                self.on_call(time.perf_counter() - began)

    async def persist(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something in the record's thread that must not be lost; while something is in its way, wait for that."""
        return await self.obstacle.passed(lambda: self.call(method, *args, **kwargs))

    async def close(self) -> None:
        """Finish what is queued, then close the store."""
        await self.call(self.store.close)
        self._thread.shutdown()
