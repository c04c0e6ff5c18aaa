"""Several small jobs in one request: where many nodes share a worker, a request costs more than a job."""

from __future__ import annotations

from dataclasses import dataclass

from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.jobs.training import TrainJob, TrainResult


@dataclass(frozen=True)
class SeveralJob:
    """Do all of it, in order; an error of one is the error of all."""

    trainings: tuple[TrainJob, ...] = ()
    mixtures: tuple[MixJob, ...] = ()
    allow_path: bool = False
    """As in `TrainJob`; holds for all of them."""


@dataclass(frozen=True)
class SeveralResult:
    """What each of the jobs came to, in their order."""

    trained: tuple[TrainResult, ...]
    mixed: tuple[MixResult, ...]
