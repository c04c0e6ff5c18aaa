"""Supervises a daemon's worker: a job whose worker died is done again by a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from covey.errors import WorkerDied
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import Operation

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
log = structlog.get_logger(room="worker")
ATTEMPTS = 3


class WorkerSupervisor:
    """One warm worker, started at once and replaced when it dies; `on_replaced` is told of that."""

    def __init__(
        self, data_dir: Path, *, device: str, log_format: str, on_replaced: Callable[[], None] = lambda: None
    ) -> None:
        self._data_dir, self._device, self._log_format = data_dir, device, log_format
        self._on_replaced = on_replaced
        self._worker: Worker | None = None
        self._lock, self._turn = asyncio.Lock(), asyncio.Lock()

    async def start(self) -> Worker:
        """The living worker; a new one where there is none."""
        async with self._lock:
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    await self._worker.stop()
                    self._on_replaced()
                self._worker = await self._started()
            return self._worker

    async def _started(self) -> Worker:
        return await Worker.start(self._data_dir, device=self._device, log_format=self._log_format)

    async def do(self, operation: Operation[J, R, P], job: J, on_progress: Callable[[P], object] | None = None) -> R:
        """Have a job done; if the worker dies of it, try again with a new one.

        Raises:
            WorkerDied: It died each time.
            CoveyError: As `Worker.do`.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._turn:  # else one job's crash would be charged to those that wait behind it
                    return await (await self.start()).do(operation, job, on_progress)
            except WorkerDied as error:
                log.warning("the worker died", attempt=attempt, attempts=ATTEMPTS, error=str(error))
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def stop(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            await self._worker.stop()
