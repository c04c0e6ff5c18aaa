"""A few trusted examples at the coordinator, for rules that judge updates by them (fltrust, zeno)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.errors import SpecError
from covey.layout import Layout
from covey.learning.data import batches, size_of
from covey.learning.models import state
from covey.learning.task import FitSettings, collate_of, loss_of, task_errors
from covey.learning.training import loop
from covey.seeds import derive_seed
from covey.spec import RunSpec
from covey.vectors import BLOCK_ELEMENTS, Vector, spans
from covey.worker.files.mapped import MappedModel
from covey.worker.files.updates import ModelVector
from covey.worker.program.context import RunContext

ROOT_INDEX = 2**31 - 1
"""Stands for a roster index in the random streams of the root data's training."""


def root_indices(spec: RunSpec, examples: int) -> Tensor:
    """Which central examples are root data, int64 `[k]`, ascending.

    Raises:
        SpecError: All of them would be: none is left to evaluate with.
    """
    count = spec.aggregation.root_examples
    if count >= examples:
        raise SpecError(
            f"aggregation.root_examples: the task has {examples} central examples, and {count} as root data leave "
            "none for the evaluation; choose a smaller number"
        )
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "root"))
    return torch.randperm(examples, generator=generator)[:count].sort().values


def evaluation_indices(spec: RunSpec, examples: int) -> Tensor:
    """The central examples that are not root data, int64 `[n]`."""
    mask = torch.ones(examples, dtype=torch.bool)
    mask[root_indices(spec, examples)] = False
    return mask.nonzero().flatten()


class Root:
    """Root data at work in one round (`covey.aggregation.contract.RootData`).

    Args:
        context: The run; its model is loaded with whatever is asked for.
        layout: The run's.
        base: The round's base version.
        number: The round, from 1.

    Raises:
        SpecError: The task has no central data, or not enough.
    """

    def __init__(self, context: RunContext, layout: Layout, base: MappedModel, number: int) -> None:
        data = central_data_of(context, f"aggregation.name: {context.spec.aggregation.name!r}")
        self._context, self._layout, self._base, self._round = context, layout, base, number
        self._data: Dataset[Any] = data
        self._indices = root_indices(context.spec, size_of(self._data))

    def update(self) -> Tensor:
        """What an honest node with the root data would send: float32 `[d]`, in memory."""
        return self._update

    @cached_property
    def _update(self) -> Tensor:
        context, spec = self._context, self._context.spec
        model = moved_model(context, self._layout, self._base, None)
        recipe = context.method.recipe(1)
        fit = FitSettings(
            spec.training,
            self._indices,
            round=self._round,
            rounds=spec.rounds_in_all,
            seed=spec.seed,
            roster_index=ROOT_INDEX,
            device=context.device,
        )
        if spec.exchange.payload == "gradient":
            tensors, _ = loop.gradient(context.task, model, self._data, fit, recipe=recipe)
            source = ModelVector(self._layout, tensors)
        else:
            loop.train(context.task, model, self._data, fit, recipe=recipe)
            source = ModelVector(self._layout, state.tensors_of(model), self._base)
        out = torch.empty(source.d)
        for columns in spans(source.d, BLOCK_ELEMENTS):
            out[columns] = source.read(columns)
        return out

    def loss(self, step: Vector | None) -> float:
        """Mean loss over the root data with the model moved by `step`; against it, where nodes send gradients."""
        context = self._context
        model = moved_model(context, self._layout, self._base, step).eval()
        total = examples = 0.0
        with torch.no_grad(), task_errors("the loss over the root data"):
            size = context.spec.evaluation.batch_size
            for batch in batches(self._data, self._indices, size, context.device, collate_of(context.task)):
                output = loss_of(context.task, model, batch)
                total += output.loss.item() * output.examples
                examples += output.examples
        return total / examples


def central_data_of(context: RunContext, who: str) -> Dataset[Any]:
    """The task's central data, which `who` needs.

    Raises:
        SpecError: The task has none here.
    """
    if context.central_data is None:
        raise SpecError(f"{who} needs trusted data, and task {context.spec.task.name!r} has no central data here")
    return context.central_data


def moved_model(context: RunContext, layout: Layout, base: MappedModel, step: Vector | None) -> nn.Module:
    """The run's model at base, or moved by a step; against it, where nodes send gradients."""
    sign = -1.0 if context.spec.exchange.payload == "gradient" else 1.0
    model = context.fresh_model().to(context.device)
    own, at = state.tensors_of(model), 0
    for name, values in base.buffers.items():
        own[name].copy_(values)
    for spec in layout.part("model").tensors:
        flat = torch.empty(spec.numel)
        for columns in spans(spec.numel, BLOCK_ELEMENTS):
            at_columns = slice(at + columns.start, at + columns.stop)
            flat[columns] = base.read(at_columns)
            if step is not None:
                flat[columns].add_(step.read(at_columns), alpha=sign)
        own[spec.name].copy_(flat.view(spec.shape))
        at += spec.numel
    return model
