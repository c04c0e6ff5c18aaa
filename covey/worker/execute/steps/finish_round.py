"""What a method is given of the round that it finishes: what each accepted node sent, opened when it is looked up."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from covey.errors import WorkerError
from covey.learning.data import size_of
from covey.learning.models import state
from covey.learning.training import loop
from covey.methods.contract import Answer, Close, Contribution, FinishContext
from covey.metrics import Metrics
from covey.vectors import Vector
from covey.worker.execute.from_spec import uses_root
from covey.worker.execute.node_ops import totals
from covey.worker.execute.root_dataset import evaluation_indices, moved_model
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.updates.update_form import layout_of
from covey.worker.execute.updates.validate_updates import Admitted, open_part
from covey.worker.files.mapped import MappedModel


class SentParts(Mapping[str, Any]):
    """The parts of one accepted update."""

    def __init__(self, step: OpenStep, row: Admitted) -> None:
        self._step, self._row = step, row
        self._parts = {part.name: part for part in step.form.sent}

    def __getitem__(self, name: str) -> Any:
        return open_part(self._row.node, self._parts[name], self._row.files, self._step.form, self._step.base)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def finish_context(
    step: OpenStep,
    accepted: Sequence[tuple[Admitted, float]],
    closed: Close | None = None,
    answers: tuple[Answer, ...] = (),
) -> FinishContext:
    """What the method may know.

    Args:
        step: The step, whose model is written by now.
        accepted: The updates that count, in roster order, with their shares.
        closed: What the method closed the round with, if it has phases.
        answers: What it was shown then.
    """
    updates = {
        row.node: Contribution(share, SentParts(step, row), partial(_moved, step, row.reader, row))
        for row, share in accepted
    }
    return FinishContext(
        round=step.number,
        form=step.form.run,
        roster=step.job.roster,
        accepted=tuple(updates),
        updates=updates,
        base=step.base,
        closed=closed,
        answers=answers,
        model=lambda: _loaded(step),
        evaluate=lambda model: _evaluated(step, model),
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads of torch, on which the bits of a training depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _moved(step: OpenStep, vector: Vector, row: Admitted) -> nn.Module:
    """The base moved by an update's vector, with the update's buffers."""
    if not step.form.has_rule:
        raise WorkerError("a run without a global model has no models of nodes that were moved from it")
    model = moved_model(step.run, step.layout, step.base, vector)
    if step.form.buffers is not None:
        own = state.tensors_of(model)
        part = step.form.buffers
        for name, values in state.views(row.tensors[part.name], layout_of(part)).items():
            own[name].copy_(values)
    return copy.deepcopy(model).eval()


def _loaded(step: OpenStep) -> nn.Module:
    """The model that the step made."""
    return copy.deepcopy(moved_model(step.run, step.layout, MappedModel(step.job.out, step.layout), None)).eval()


def _evaluated(step: OpenStep, model: nn.Module) -> Metrics:
    run = step.run
    if run.central_data is None:
        return {}
    indices = evaluation_indices(run.spec, size_of(run.central_data)) if uses_root(run.spec) else None
    size = run.spec.evaluation.batch_size
    return totals(loop.evaluate(run.task, model, run.central_data, size, run.device, indices))
