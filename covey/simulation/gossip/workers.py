"""The work of all virtual nodes, done by a few processes: what waits is taken along, many small jobs in a request."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from covey.simulation.pool import Pool
from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.jobs.operations import SEVERAL
from covey.worker.jobs.several import SeveralJob
from covey.worker.jobs.training import TrainJob, TrainResult

MOST = 32
"""Jobs of one request."""


@dataclass(frozen=True)
class _Waiting:
    job: TrainJob | MixJob
    answer: asyncio.Future[Any]


class Workers:
    """Has the jobs of nodes done.

    Args:
        pool: By whom.
        processes: How many those are.
    """

    def __init__(self, pool: Pool, processes: int) -> None:
        self._pool, self._processes = pool, processes
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        """Tasks that look again for what waits, when they are done with what they have."""

    def train(self, job: TrainJob) -> asyncio.Future[TrainResult]:
        """Train."""
        return self._put(job)

    def mix(self, job: MixJob) -> asyncio.Future[MixResult]:
        """Mix."""
        return self._put(job)

    async def close(self) -> None:
        """Give up what is not done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _put(self, job: TrainJob | MixJob) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, answer))
        if self._busy < self._processes:
            self._busy += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answer

    async def _work(self) -> None:
        """Do what waits, until nothing does."""
        async with self._pool.worker() as worker:
            while self._waiting:
                taken = self._share()
                try:
                    done = await worker.do(SEVERAL, _several(taken))
                except Exception as error:
                    for each in taken:
                        _fail(each.answer, error)
                    continue
                trained, mixed = iter(done.trained), iter(done.mixed)
                for each in taken:
                    result = next(trained) if isinstance(each.job, TrainJob) else next(mixed)
                    if not each.answer.done():
                        each.answer.set_result(result)
            self._busy -= 1

    def _share(self) -> list[_Waiting]:
        """What one process takes: no more than leaves as much for each of the others."""
        count = min(MOST, -(-len(self._waiting) // self._processes))
        return [self._waiting.popleft() for _ in range(count)]


def _several(taken: list[_Waiting]) -> SeveralJob:
    jobs = [each.job for each in taken]
    return SeveralJob(
        tuple(job for job in jobs if isinstance(job, TrainJob)),
        tuple(job for job in jobs if isinstance(job, MixJob)),
        allow_path=any(job.allow_path for job in jobs),
    )


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # one of a request is raised where it is waited for; the others say the same
