"""Supervises a daemon's worker: a job whose worker died is done again by a new one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from covey.errors import WorkerDied
from covey.worker.client.client import Worker
from covey.worker.client.confinement import Confinement
from covey.worker.client.output import OnOutput, unheard
from covey.worker.jobs.operations import HELLO, Operation
from covey.worker.jobs.runs import HelloJob, HelloResult

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
log = structlog.get_logger(room="worker")
ATTEMPTS = 3


async def first_ended(tasks: Sequence[asyncio.Task[Any]], ready: asyncio.Task[HelloResult]) -> set[asyncio.Task[Any]]:
    """Wait for the first of a daemon's tasks that ends, or for a worker that cannot start; which ended."""
    done, _ = await asyncio.wait([*tasks, ready], return_when=asyncio.FIRST_COMPLETED)
    if done == {ready} and ready.exception() is None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done


class LivingWorker(Protocol):
    """The part of `Worker` that its supervisor needs; another may do its work on another machine."""

    @property
    def pid(self) -> int:
        """As `Worker.pid`."""

    @property
    def alive(self) -> bool:
        """As `Worker.alive`."""

    async def do(
        self,
        operation: Operation[J, R, P],
        job: J,
        on_progress: Callable[[P], object] | None = None,
        *,
        stall_s: float = math.inf,
    ) -> R:
        """As `Worker.do`."""

    async def stop(self) -> None:
        """As `Worker.stop`."""


class WorkerSupervisor:
    """One warm worker, started at once and replaced when it dies.

    Args:
        data_dir: Its folder.
        device: What it computes on.
        log_format: Of its log.
        on_replaced: Told when another one had to be started.
        stall_s: How long any job may go without a step; a job may say less (its `stall_s`).
        log_name: What people call its log.
        confinement: As for `Worker.start`.
        on_output: As for `Worker.start`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        device: str,
        log_format: str,
        on_replaced: Callable[[], None] = lambda: None,
        stall_s: float = math.inf,
        log_name: str = "",
        confinement: Confinement | None = None,
        on_output: OnOutput = unheard,
    ) -> None:
        self._data_dir, self._device, self._log_format, self._log_name = data_dir, device, log_format, log_name
        self._on_replaced, self._stall_s, self._confinement = on_replaced, stall_s, confinement
        self._worker: LivingWorker | None = None
        self._on_output = on_output
        self._lock, self._turn = asyncio.Lock(), asyncio.Lock()

    async def start(self) -> LivingWorker:
        """The living worker; a new one where there is none."""
        async with self._lock:
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    await self._worker.stop()
                    self._on_replaced()
                self._worker = await self._started()
            return self._worker

    @property
    def may_lack_device(self) -> bool:
        """Whether the device that was asked for may not be there, so that `ready` should be awaited first."""
        return self._device not in ("cpu", "auto")

    async def ready(self) -> HelloResult:
        """Wait until the worker can compute.

        Raises:
            WorkerError: It cannot; the message says why.
        """
        return await self.do(HELLO, HelloJob())

    async def _started(self) -> LivingWorker:
        return await Worker.start(
            self._data_dir,
            device=self._device,
            log_format=self._log_format,
            log_name=self._log_name,
            confinement=self._confinement,
            on_output=self._on_output,
        )

    async def do(self, operation: Operation[J, R, P], job: J, on_progress: Callable[[P], object] | None = None) -> R:
        """Have a job done; if the worker dies of it, try again with a new one.

        Raises:
            WorkerDied: It died each time.
            WorkerStalled: The job made no step for too long; it is not tried again.
            CoveyError: As `Worker.do`.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._turn:  # else one job's crash would be charged to those that wait behind it
                    return await (await self.start()).do(operation, job, on_progress, stall_s=self._patience(job))
            except WorkerDied as error:
                log.warning("the worker died", attempt=attempt, attempts=ATTEMPTS, error=str(error))
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _patience(self, job: object) -> float:
        return min(self._stall_s, getattr(job, "stall_s", 0.0) or math.inf)

    async def stop(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            await self._worker.stop()
