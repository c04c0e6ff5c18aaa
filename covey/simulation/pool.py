"""The processes that train for all virtual nodes, and what stands in for one node's own worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from covey.simulation.adversaries import Adversaries
from covey.simulation.arrival_order import Pace
from covey.simulation.data_dir import LOG, WORKERS
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import LivingWorker, WorkerSupervisor
from covey.worker.jobs.operations import Operation
from covey.worker.jobs.training import TrainJob

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")


class LoggedSupervisor(WorkerSupervisor):
    """A supervisor whose worker writes its log lines into a file, not over the progress bar."""

    def __init__(self, data_dir: Path, log_file: Path, *, device: str) -> None:
        super().__init__(data_dir, device=device, log_format="console")
        self._log_file = log_file

    async def _started(self) -> LivingWorker:
        return await Worker.start(self._data_dir, device=self._device, log_file=self._log_file)


class Pool:
    """Workers that any node's job may go to; jobs wait in the order in which they came."""

    def __init__(self, workers: Sequence[WorkerSupervisor]) -> None:
        self._workers = workers
        self._idle: asyncio.Queue[WorkerSupervisor] = asyncio.Queue()
        for worker in workers:
            self._idle.put_nowait(worker)

    async def start(self) -> None:
        """Start all processes."""
        for worker in self._workers:
            await worker.start()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerSupervisor]:
        """The next idle worker, for the caller alone."""
        worker = await self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put_nowait(worker)

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))


class Crew:
    """The processes of a simulation; several can use them one after the other, in the same event loop.

    Args:
        folder: For their private files and their log.
        count: How many train.
        device: What they compute on.
        training: Who trains in place of processes of this machine.
    """

    def __init__(self, folder: Path, count: int, *, device: str, training: Sequence[WorkerSupervisor] = ()) -> None:
        def worker(name: str) -> LoggedSupervisor:
            return LoggedSupervisor(folder / WORKERS / name, folder / LOG, device=device)

        self.coordinator = worker("coordinator")
        self.pool = Pool(training or [worker(str(k)) for k in range(count)])

    async def start(self) -> None:
        """Start them; they need a second or two, in which other things can be done."""
        await self.coordinator.start()
        await self.pool.start()

    async def stop(self) -> None:
        """End them."""
        await asyncio.gather(self.coordinator.stop(), self.pool.stop())


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

    async def do(self, operation: Operation[J, R, P], job: J, on_progress: Callable[[P], object] | None = None) -> R:
        """Have a job done by any worker; after a training the node waits for its turn to deliver.

        Nobody hears of progress. Errors as `WorkerSupervisor.do`.
        """
        if not isinstance(job, TrainJob):
            async with self._pool.worker() as worker:
                return await worker.do(operation, job)
        await self._adversaries.turn(self._node, job.round)
        async with self._pool.worker() as worker:
            # What adversaries know is looked up when a worker is free for them, not when they begin to wait for one.
            ordered: Any = self._adversaries.ordered(self._node, job)
            result = await worker.do(operation, ordered)
        await self._pace.turn(self._node, job.round)
        return result
