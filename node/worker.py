"""The node's own worker process, kept alive, behind the port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


class KeptWorker:
    """`covey.node.ports.Worker`; a job whose worker died is done again by a new one.

    Args:
        keeper: Who starts the process and sees to its end.
    """

    def __init__(self, keeper: WorkerKeeper) -> None:
        self._keeper = keeper

    async def train(self, job: TrainJob, on_progress: Callable[[TrainProgress], None]) -> TrainResult:
        """As `covey.worker.client.client.Worker.train`."""
        return await self._keeper.use(lambda worker: worker.train(job, on_progress=on_progress))

    async def evaluate(self, job: EvaluateJob) -> Metrics:
        """As `covey.worker.client.client.Worker.evaluate`."""
        return await self._keeper.use(lambda worker: worker.evaluate(job))

    async def apply(self, job: ApplyJob) -> ApplyResult:
        """As `covey.worker.client.client.Worker.apply`."""
        return await self._keeper.use(lambda worker: worker.apply(job))

    async def initial(self, run: str, spec_json: str, out: Path, *, allow_path: bool) -> InitialResult:
        """As `covey.worker.client.client.Worker.initial`."""
        return await self._keeper.use(lambda worker: worker.initial(run, spec_json, out, allow_path=allow_path))
