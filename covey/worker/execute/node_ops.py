"""What a node asks of its worker: train, evaluate, check."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor
from torch.utils.data import Dataset

from covey import faults
from covey.codecs.contract import Codec
from covey.errors import TaskError
from covey.layout import Layout
from covey.learning.data import size_of
from covey.learning.models import state
from covey.learning.models.flat import flat_of, load_flat
from covey.learning.nesterov import nesterov_warning
from covey.learning.recipe import PlainRecipe, RecipeInputs
from covey.learning.statistics import Stat
from covey.learning.task import FitResult, FitSettings
from covey.learning.training import loop
from covey.learning.training.local_first import LocalFirst
from covey.learning.training.per_example import per_example_sum
from covey.learning.training.private import train_privately
from covey.methods.contract import Method
from covey.metrics import ALONE, Metrics, bounded, failed, why
from covey.outgoing.filters import TRAINING
from covey.parts import FIRST, LOCAL, slot
from covey.spec import parse_json
from covey.worker.execute import privacy_metrics as privacy
from covey.worker.execute.forms import evaluates_with, in_words
from covey.worker.execute.from_spec import hides_examples, load_codec, uses_root
from covey.worker.execute.limits import check_answer, check_consent, check_limits, check_privacy, declines_later
from covey.worker.execute.next_version import open_change, write_model
from covey.worker.execute.root_dataset import evaluation_indices
from covey.worker.execute.updates.filtered import Filters
from covey.worker.execute.updates.metrics_out import leaving_of, let_out
from covey.worker.execute.updates.write_parts import PartsWriter
from covey.worker.files.mapped import MappedModel, map_float32
from covey.worker.jobs.evaluation import EvaluateJob, EvaluateResult
from covey.worker.jobs.runs import CheckJob, CheckResult, HelloJob, HelloResult
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult
from covey.worker.jobs.versions import ApplyJob, ApplyResult
from covey.worker.program.context import Contexts, RunContext
from covey.worker.program.host import Host

log = structlog.get_logger(room="worker")


def hello(job: HelloJob, host: Host) -> HelloResult:
    """What this worker computes on."""
    free = torch.cuda.mem_get_info(host.device)[0] if host.device.type == "cuda" else 0
    return HelloResult(device_name(host.device), host.confinement, free)


def train(job: TrainJob, host: Host) -> TrainResult:
    """Train from the base model, and write the update's parts.

    Raises:
        LayoutError: Task, base file and run do not belong together.
        TaskError: The task's code failed, or training diverged.
    """
    began = time.monotonic()
    context = _context(host.contexts, job)
    check_consent(job.limits, context.method)
    layout = context.require_layout(job.layout)
    state.load_into(context.fresh_model(), job.base, layout)
    context.load_local(job.state)
    load_member(context, job.state)
    codec = load_codec(context.spec.exchange)
    spent = check_privacy(job.limits, context.spec, codec, job.private_before)
    if context.spec.evaluation.only:
        return _only_evaluated(context, job, codec, host, began)
    # What a node tells of its data would have to be paid for.
    tells = job.evaluate and not hides_examples(context.spec, codec) and not _is_all_it_tells(context.method)
    evaluation: Metrics = {}
    if tells:
        evaluation = let_out(context, job, _safely(host, lambda: _evaluated(context, context.eval_data, host)))
        host.report(TrainProgress(0, 0, math.nan, time.monotonic() - began))  # from here on it is the training
    writer = PartsWriter(context, job, codec)
    inputs = writer.inputs()
    whole = sum(p.numel() for p in context.model.parameters())
    check_limits(job.limits, context.spec, len(_indices(context, job)), whole)
    gradients, fit = _fit(context, job, codec, inputs, host, began)
    host.check_cancelled()
    written = writer.write(gradients, fit, inputs, host.check_cancelled)
    metrics = {} if _is_all_it_tells(context.method) else totals(fit.metrics)
    passed = writer.filters.metrics(metrics, leaving_of(context.spec, job.round, TRAINING, fit.examples))
    return TrainResult(
        parts=written.parts,
        examples=fit.examples,
        steps=fit.steps,
        seconds=time.monotonic() - began,
        metrics={**passed, **spent},
        evaluation=evaluation,
        state=written.state,
        own_state=written.own_state,
        private=must_not_repeat(context, codec),
        code=context.code,
        filters=writer.filters.names,
    )


def _only_evaluated(context: RunContext, job: TrainJob, codec: Codec, host: Host, began: float) -> TrainResult:
    """What a node has to say in a run that trains nothing: how good the base is, and what it can do alone.

    Raises:
        TaskError: It has no evaluation data.
        PolicyError: It has fewer than its operator wants to be behind an answer.
    """
    dataset, spec = context.eval_data, context.spec
    if dataset is None:
        text = f"task {spec.task.name!r} gives no evaluation data on this node (Task.eval_data)"
        raise TaskError(text + evaluates_with(context.task))
    check_answer(job.limits, size_of(dataset))
    if context.local.names and slot(LOCAL) not in job.state:
        raise TaskError(
            f"this node does not have what stayed on it ({', '.join(sorted(context.local.names))[:200]}) of run "
            f"{spec.model.parent.partition('@')[0]}: it took no part in it, or lost it, or has worked for many since"
        )
    evaluation = dict(_safely(host, lambda: _evaluated(context, dataset, host)))
    steps = 0
    if spec.evaluation.local_rounds:
        steps, metrics = _alone(context, job, codec, host, began)
        evaluation |= {f"{ALONE}{name}": value for name, value in metrics.items()}  # each half is bounded by itself
    seconds, passed = time.monotonic() - began, let_out(context, job, evaluation)
    return TrainResult((), size_of(dataset), steps, seconds, {}, passed, code=context.code)


def _alone(context: RunContext, job: TrainJob, codec: Codec, host: Host, began: float) -> tuple[int, Metrics]:
    """Train with nobody else, from where the training began: the steps that it took, and what came of it.

    It is the training of a federation that has this node only, whose model is in memory and nowhere else.
    """
    host.report(TrainProgress(0, 0, math.nan, time.monotonic() - began))
    check_limits(
        job.limits, context.spec, len(_indices(context, job)), sum(p.numel() for p in context.model.parameters())
    )
    model, steps = context.first_model(), 0
    if FIRST in job.inputs:
        state.load_into(model, job.inputs[FIRST], context.layout)
    try:
        for number in range(1, context.spec.evaluation.local_rounds + 1):
            _, fit = _fit(context, replace(job, round=number), codec, RecipeInputs(context.layout), host, began)
            steps += fit.steps
        return steps, _safely(host, lambda: _evaluated(context, context.eval_data, host))
    except TaskError as error:
        return steps, failed(host.with_log(str(error)) if error.__cause__ is not None else error)


def apply(job: ApplyJob, host: Host) -> ApplyResult:
    """Make a version from the one before it and the committed change.

    Raises:
        LayoutError: A file is not of the run's layout.
        LimitExceeded: The change is too long.
    """
    layout = Layout.from_json(job.layout)
    codec = load_codec(parse_json(job.spec_json).exchange).downlink()
    change, buffers = open_change(job.change, codec, layout)
    written = write_model(job.out, layout, MappedModel(job.base, layout), change, buffers)
    return ApplyResult(written.artifact, written.model_sha256)


def evaluate(job: EvaluateJob, host: Host) -> EvaluateResult:
    """Evaluate a model file on the task's central data, or on the node's own; no metrics without such data.

    What the task's code gets wrong is the reason for which metrics are missing.

    Raises:
        LayoutError: The file is not of the task's model.
        PolicyError: The node's operator lets nothing of it leave.
    """
    context = _context(host.contexts, job)
    metrics = _safely(host, lambda: _metrics(context, job, host))
    return EvaluateResult(metrics if job.where == "central" else let_out(context, job, metrics))


def _safely(host: Host, evaluation: Callable[[], Metrics]) -> Metrics:
    """What an evaluation comes to: an error of the task's code costs the metrics, and nothing else."""
    try:
        return evaluation()
    except TaskError as error:
        log.warning("evaluation failed", error=str(error), exc_info=error.__cause__)
        return failed(host.with_log(str(error)) if error.__cause__ is not None else error)


def _metrics(context: RunContext, job: EvaluateJob, host: Host) -> Metrics:
    codec = load_codec(context.spec.exchange)
    if job.where == "node":
        if _is_all_it_tells(context.method) or hides_examples(context.spec, codec):
            return {}  # what a node tells of its data would have to be paid for
        check_privacy(job.limits, context.spec, codec, 0)
    dataset = context.central_data if job.where == "central" else context.eval_data
    if dataset is None:
        return {}
    layout = context.require_layout(job.layout) if job.layout else context.layout
    state.load_into(context.fresh_model(), job.model, layout)
    if job.where == "node":
        context.load_local(job.state)
        load_member(context, job.state)
        return _evaluated(context, dataset, host)
    return _central(context, dataset, host)


def must_not_repeat(context: RunContext, codec: Codec) -> bool:
    """Whether an update has noise that is new each time, and would show more of the data with each."""
    section = context.spec.privacy
    is_noisy = section is not None and section.unit == "example" and not section.reproducible
    method = context.method
    is_noisy = is_noisy or (method.privacy is not None and not method.reproducible)
    return is_noisy or codec.private or method.label_counts == "noisy"


def load_member(context: RunContext, state_files: Mapping[str, Path]) -> None:
    """In a run without a global model: load the node's own, if it has one already."""
    path, part = state_files.get(slot(context.method.member)), context.layout.part("model")
    if not context.method.member or path is None:
        return
    load_flat(context.model, part, map_float32(path, part.numel))


def _central(context: RunContext, dataset: Dataset[Any], host: Host) -> Metrics:
    if context.spec.facts.synchronous and uses_root(context.spec):
        return _evaluated(context, dataset, host, evaluation_indices(context.spec, size_of(dataset)))
    return _evaluated(context, dataset, host)


def check(job: CheckJob, host: Host) -> CheckResult:
    """Train one local batch from the run's first model, evaluate one, and keep nothing."""
    paths, options = job.node_paths, job.node_options
    context = RunContext(
        job.spec_json,
        host.device,
        paths=paths,
        options=options,
        allow_path=job.allow_path,
        task_options=job.task_options,
    )
    check_consent(job.limits, context.method)
    context.check_model()
    spec = context.spec
    codec = load_codec(spec.exchange)
    check_privacy(job.limits, spec, codec, 0)
    filters, before = Filters(job.filters, codec), flat_of(context.model, context.layout.part("model"))
    one_step = spec.training.model_copy(update={"local_epochs": None, "local_steps": 1})
    indices = context.indices(0, spec.data.parts or 1)
    recipe = context.method.recipe(1)
    torch.set_num_threads(one_step.threads)
    began = time.monotonic()
    fit = loop.train(
        context.task,
        context.model,
        context.train_data,
        FitSettings(
            one_step, indices, round=1, rounds=spec.rounds_in_all, seed=spec.seed, roster_index=0, device=context.device
        ),
        recipe=None if recipe is None or recipe.trains else recipe,
        inputs=RecipeInputs(context.layout, min_k=job.limits.min_k, label_counts=job.limits.label_counts),
    )
    seconds = time.monotonic() - began
    payload, layout = spec.exchange.payload, context.layout.part("model")
    trained = flat_of(context.model, layout)
    sent = trained if payload == "parameters" else trained - before
    filters.flat(sent, layout, leaving_of(spec, 1, "model", fit.examples))
    filters.metrics(totals(fit.metrics), leaving_of(spec, 1, TRAINING, fit.examples))
    return CheckResult(
        examples=fit.examples,
        layout_sha256=context.layout.sha256,
        parameters=context.layout.part("model").numel,
        loss=fit.metrics["loss"].ratio if "loss" in fit.metrics else 0.0,
        seconds_per_step=seconds / max(1, fit.steps),
        device=device_name(context.device),
        sharing=in_words(context.form()),
        evaluation=let_out(context, job, _safely(host, lambda: _first_batch(context, host))),
        privacy=privacy.in_words(privacy.forecast(spec, codec), spec),
        filters=filters.names,
        warnings=tuple(
            filter(None, [nesterov_warning(spec.training, fit.examples), declines_later(job.limits, spec, codec)])
        ),
    )


def _first_batch(context: RunContext, host: Host) -> Metrics:
    """The evaluation of one batch."""
    dataset = context.eval_data
    if dataset is None:
        return {}
    return _evaluated(context, dataset, host, torch.arange(min(size_of(dataset), context.spec.evaluation.batch_size)))


def device_name(device: torch.device) -> str:
    """`cpu`, or `cuda (NVIDIA H200)`."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def totals(metrics: Mapping[str, Stat]) -> Metrics:
    """Metrics as (total, count) by name, or why they are missing."""
    return bounded(
        {
            name: why(stat.why_missing) if stat.why_missing else (float(stat.total), float(stat.count))
            for name, stat in metrics.items()
        }
    )


def _context(contexts: Contexts, job: TrainJob | EvaluateJob) -> RunContext:
    context = contexts.get(
        job.run,
        job.spec_json,
        allow_path=job.allow_path,
        paths=job.node_paths,
        options=job.node_options,
        task_options=job.task_options,
    )
    torch.set_num_threads(context.spec.training.threads)
    return context


def _evaluated(context: RunContext, dataset: Dataset[Any] | None, host: Host, indices: Tensor | None = None) -> Metrics:
    if dataset is None:
        return {}
    task, model, size = context.task, context.model, context.spec.evaluation.batch_size
    return totals(loop.evaluate(task, model, dataset, size, context.device, indices, host.check_cancelled))


def _fit(
    context: RunContext, job: TrainJob, codec: Codec, inputs: RecipeInputs, host: Host, began: float
) -> tuple[dict[str, Tensor] | None, FitResult]:
    """Train locally, or take one gradient (which leaves the parameters as they are)."""
    spec, is_all = context.spec, _is_all_it_tells(context.method)

    def progress(step: int, steps: int, loss: float) -> None:
        host.report(TrainProgress(step, steps, math.nan if is_all else loss, time.monotonic() - began))

    def each_step() -> None:
        faults.reach("training-step")
        host.check_cancelled()

    fit = FitSettings(
        spec.training,
        _indices(context, job),
        round=job.round,
        rounds=spec.evaluation.local_rounds or spec.rounds_in_all,
        seed=spec.seed,
        roster_index=job.roster_index,
        device=context.device,
        progress=progress,
        each_step=each_step,
    )
    which = context.task, context.model, _training_data(context, job), fit
    recipe = context.method.recipe(job.phase)
    if recipe is not None and not recipe.trains:  # whatever else the run asks for: no loss, no gradient
        return None, loop.train(*which, recipe=recipe, inputs=inputs)
    if spec.privacy is not None and spec.privacy.unit == "example":
        return None, train_privately(*which, spec.privacy)
    if spec.training.local_first:
        recipe = LocalFirst(recipe or PlainRecipe(), context.local.names, spec.training.local_first)
    method: Any = {"recipe": recipe, "inputs": inputs}
    if (per_example := codec.per_example) is not None:
        return per_example_sum(*which, clip=per_example.clip, norm=per_example.norm)
    if spec.exchange.payload == "gradient":
        gradients, result = loop.gradient(*which, **method)
        each_step()
        return gradients, result
    return None, loop.train(*which, **method)


def _is_all_it_tells(method: Method) -> bool:
    """Whether the parts of an update are all that it may tell of the data: no metrics, and no loss on the way."""
    return method.statistics or method.privacy is not None


def _indices(context: RunContext, job: TrainJob) -> Tensor:
    """This node's part of the training examples: int64 `[n]`."""
    return context.indices(job.roster_index if job.part < 0 else job.part, job.num_partitions)


def _training_data(context: RunContext, job: TrainJob) -> Dataset[Any]:
    """The node's examples; on a drill node that poisons labels, with wrong ones."""
    data = context.train_data
    if job.attack is not None:
        from covey.worker.execute.updates.adversary import flipped, poisons_labels

        if poisons_labels(job.attack):
            return flipped(context.task, context.model, data, context.device)
    return data
