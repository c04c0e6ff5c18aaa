"""Which files of the coordinator's a node keeps for its runs, and which of its own wait to be dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from covey.node.ports import Files, Store

log = structlog.get_logger(room="node")
P = ParamSpec("P")
T = TypeVar("T")
MAX_RUNS = 16
"""Of so many runs files are kept, as many as a coordinator takes care of at once. They can be had again."""


class HeldFiles:
    """The base model of each run, and what came with it, until the next one is here.

    Files have the names of their contents, so that two runs may have one file. Whatever brings files in, or drops some,
    therefore happens under `lock`, alone: nothing is dropped that another run has just begun to need.

    Args:
        files: The node's.
        store: What is needed by it is never dropped.
    """

    def __init__(self, files: Files, store: Store) -> None:
        self._files, self._store, self.lock = files, store, asyncio.Lock()
        self._models: dict[str, str] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._abandoned: list[Path] = []

    def model(self, run: str) -> str:
        """Digest of the file of the run's newest model that is here; empty: none."""
        return self._models.get(run, "")

    async def at_once(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work that hardly waits under the lock, without a thread: small files that are not synced."""
        async with self.lock:
            return work(*args, **kwargs)

    async def alone(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a thread, under the lock. If this is cancelled, the work still ends under the lock."""
        return await asyncio.shield(asyncio.create_task(self._alone(work, *args, **kwargs)))

    async def _alone(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self.lock:
            return await asyncio.to_thread(work, *args, **kwargs)

    def expect(self, run: str, digests: Iterable[str]) -> None:
        """Files of a run are about to come, by digest: keep them too, until `hold` says which are still of use."""
        self._held[run] = self._held.pop(run, frozenset()).union(digests)

    def hold(self, run: str, model: str, others: Iterable[str] = ()) -> None:
        """A run's newest model and the files beside it are here, by digest: drop (rename) those of the one before."""
        before = self._held.pop(run, frozenset())
        self._held[run], self._models[run] = frozenset((model, *others)), model
        self.release(before)
        while len(self._held) > MAX_RUNS:
            oldest = next(iter(self._held))
            log.warning("the model of a run is dropped: other runs are newer", run=oldest, max_runs=MAX_RUNS)
            self.forget(oldest)

    def keep_only(self, run: str, digests: Iterable[str]) -> None:
        """Files of a run are about to come, by digest, and what else is here of it is of no more use."""
        before = self._held.pop(run, frozenset())
        self._models.pop(run, None)
        self._held[run] = frozenset(digests)
        self.release(before)

    def forget(self, run: str) -> None:
        """The run has ended, or others are newer."""
        self._models.pop(run, None)
        self.release(self._held.pop(run, frozenset()))

    def release(self, digests: Iterable[str]) -> None:
        """Drop those of these files that no run needs."""
        self._files.release(set(digests).difference(*self._held.values()) - self._store.needed())

    def abandon(self, paths: Iterable[Path]) -> None:
        """Scratch files of a job that was given up: the worker may still be writing them."""
        self._abandoned.extend(paths)

    def discard_abandoned(self) -> None:
        """Another job is done: nobody writes them any more."""
        while self._abandoned:
            self._files.discard(self._abandoned.pop())
