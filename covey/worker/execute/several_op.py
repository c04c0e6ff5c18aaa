"""Several small jobs in one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from covey.worker.execute.mix_op import mix
from covey.worker.execute.node_ops import train
from covey.worker.jobs.several import SeveralJob, SeveralResult
from covey.worker.program.host import Host
from covey.worker.program.process_settings import KEPT

J = TypeVar("J")
R = TypeVar("R")


def several(job: SeveralJob, host: Host) -> SeveralResult:
    """Do the jobs one after the other, each as if it had come alone.

    Raises:
        LayoutError: As `train` and `mix`.
        TaskError: As `train` and `mix`.
    """
    return SeveralResult(_each(train, job.trainings, host), _each(mix, job.mixtures, host))


def _each(function: Callable[[J, Host], R], jobs: Iterable[J], host: Host) -> tuple[R, ...]:
    results = []
    for job in jobs:
        try:
            results.append(function(job, host))
        finally:
            KEPT.put_back()
        host.check_cancelled()
    return tuple(results)
