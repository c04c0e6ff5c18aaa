"""A plain blocking face for coroutines: an event loop in a thread of its own, also where the caller has a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

R = TypeVar("R")
_END: Any = object()


class LoopThread:
    """Runs coroutines for callers that are not coroutines themselves; started at the first one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()
        """Held while work is handed to the loop, so that none comes after its end: its caller would wait for ever."""

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine to its end; where the caller is interrupted, it is cancelled.

        Raises:
            RuntimeError: The loop has been closed.
        """
        with self._lock:
            if self._closed:
                work.close()
                raise RuntimeError("this connection is closed; make another one")
            future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[R]) -> Generator[R]:
        """The items of an asynchronous generator, which is closed with this one, or with the loop."""
        turn = asyncio.Lock()
        try:
            while (item := self.run(_next(items, turn))) is not _END:
                yield item
        finally:
            if not self._closed:
                self.run(_close(items, turn))

    def close(self) -> None:
        """End the loop and its thread; what still runs, for whichever thread, is cancelled."""
        with self._lock:
            self._closed = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="covey-client", daemon=True)
            self._thread.start()
        return self._loop


async def _next(items: AsyncGenerator[R], turn: asyncio.Lock) -> R:
    async with turn:
        return await anext(items, _END)


async def _close(items: AsyncGenerator[R], turn: asyncio.Lock) -> None:
    async with turn:  # a step that is being cancelled ends first: until then the generator runs, and cannot be closed
        await items.aclose()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()
