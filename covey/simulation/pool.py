"""The processes that train for all virtual nodes, and what stands in for one node's own worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from covey.simulation.adversaries import Adversaries
from covey.simulation.arrival_order import Pace
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import WorkerKeeper
from covey.worker.jobs.messages import (
    ApplyJob,
    ApplyResult,
    EvaluateJob,
    InitialResult,
    Metrics,
    TrainJob,
    TrainProgress,
    TrainResult,
)

R = TypeVar("R")
log = structlog.get_logger(room="simulation")


class LoggedKeeper(WorkerKeeper):
    """A keeper whose worker writes its log lines into a file, not over the progress bar."""

    def __init__(self, data_dir: Path, log_file: Path, *, device: str) -> None:
        super().__init__(data_dir, device=device, log_format="console")
        self._log_file = log_file

    async def start(self) -> Worker:
        """As `WorkerKeeper.start`."""
        async with self._lock:
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    await self._worker.stop()
                self._worker = await Worker.start(self._data_dir, device=self._device, log_file=self._log_file)
            return self._worker


class Pool:
    """Workers that any node's job may go to; jobs wait in the order in which they came."""

    def __init__(self, keepers: list[LoggedKeeper]) -> None:
        self._keepers = keepers
        self._idle: asyncio.Queue[LoggedKeeper] = asyncio.Queue()
        for keeper in keepers:
            self._idle.put_nowait(keeper)

    async def start(self) -> None:
        """Start all processes."""
        for keeper in self._keepers:
            await keeper.start()

    async def use(self, job: Callable[[Worker], Awaitable[R]]) -> R:
        """Do a job on the next idle worker; errors as `WorkerKeeper.use`."""
        keeper = await self._idle.get()
        try:
            return await keeper.use(job)
        finally:
            self._idle.put_nowait(keeper)

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers))


class PooledWorker:
    """What a virtual node takes for its own worker (`covey.node.ports.Worker`): the pool, once its turn has come.

    Args:
        node: The node's id.
        pool: Where the work is done.
        adversaries: Who attacks, and what they must know first.
        pace: When the node may deliver.
    """

    def __init__(self, node: str, pool: Pool, adversaries: Adversaries, pace: Pace) -> None:
        self._node, self._pool, self._adversaries, self._pace = node, pool, adversaries, pace

    async def train(self, job: TrainJob, on_progress: Callable[[TrainProgress], None]) -> TrainResult:
        """As `Worker.train`, and then the node's turn to deliver; nobody hears of its progress."""
        await self._adversaries.turn(self._node, job.round)
        # What adversaries know is looked up when a worker is free for them, not when they begin to wait for one.
        result = await self._pool.use(lambda worker: worker.train(self._adversaries.ordered(self._node, job)))
        await self._pace.turn(self._node, job.round)
        return result

    async def evaluate(self, job: EvaluateJob) -> Metrics:
        """As `Worker.evaluate`."""
        return await self._pool.use(lambda worker: worker.evaluate(job))

    async def initial(self, run: str, spec_json: str, out: Path, *, allow_path: bool) -> InitialResult:
        """As `Worker.initial`."""
        return await self._pool.use(lambda worker: worker.initial(run, spec_json, out, allow_path=allow_path))

    async def apply(self, job: ApplyJob) -> ApplyResult:
        """As `Worker.apply`."""
        return await self._pool.use(lambda worker: worker.apply(job))
