"""What a node says of an evaluation: of enough examples, and past its operator's filters."""

from __future__ import annotations

from covey.errors import PolicyError
from covey.learning.data import size_of
from covey.metrics import Metrics, counted, failed
from covey.outgoing.filters import EVALUATION, Leaving
from covey.spec import RunSpec
from covey.worker.execute.from_spec import load_codec
from covey.worker.execute.limits import check_answer
from covey.worker.execute.updates.filtered import Filters
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.runs import CheckJob
from covey.worker.jobs.training import TrainJob
from covey.worker.program.context import RunContext


def let_out(context: RunContext, job: TrainJob | EvaluateJob | CheckJob, metrics: Metrics) -> Metrics:
    """What leaves in the place of an evaluation's metrics; of too few examples it is the reason.

    Args:
        context: The run.
        job: Has the operator's limits, and filters.
        metrics: What the evaluation came to.

    Raises:
        PolicyError: A filter refuses.
        TaskError: A filter failed.
    """
    if not counted(metrics) or (dataset := context.eval_data) is None:
        return metrics
    examples = size_of(dataset)
    try:
        check_answer(job.limits, examples)
    except PolicyError as error:
        return failed(f"{error.code}: {error}")
    number = job.round if isinstance(job, TrainJob) else 0
    filters = Filters(job.filters, load_codec(context.spec.exchange))
    return filters.metrics(metrics, leaving_of(context.spec, number, EVALUATION, examples))


def leaving_of(spec: RunSpec, number: int, what: str, examples: int) -> Leaving:
    """What a filter is told of something that is about to leave."""
    return Leaving(spec.name, number, what, spec.exchange.payload, examples)
