"""The built-in local training: seeded, repeatable, and as fast as a loop written by hand."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.errors import SpecError, TaskError
from covey.learning.data import batches, is_plain, size_of
from covey.learning.models.entries import unwrapped
from covey.learning.models.state import layout_of
from covey.learning.optimizers import local_optimizer
from covey.learning.recipe import PlainRecipe, Recipe, RecipeContext, RecipeInputs
from covey.learning.returns import method_of, stats_of
from covey.learning.statistics import Stat, merge
from covey.learning.table import table_of
from covey.learning.task import FitResult, FitSettings, LossOutput, Task, collate_of, fit_of, loss_of, task_errors
from covey.learning.training.prefetch import prefetched
from covey.learning.training.seeding import seed_torch
from covey.seeds import derive_seed
from covey.spec import TrainingSection

PROGRESS_INTERVAL_S = 0.2


def train(
    task: Task,
    model: nn.Module,
    dataset: Dataset[Any],
    fit: FitSettings,
    *,
    recipe: Recipe | None = None,
    inputs: RecipeInputs | None = None,
) -> FitResult:
    """Train a model in place on one node's part of the data.

    The result depends on the arguments only (and on hardware, versions and thread count): the batches'
    order and all randomness come from (seed, round, roster index). The caller sets the number of threads.

    Args:
        task: Gives the loss, or its own `fit`.
        model: Holds the round's base values; is moved to `fit.device`.
        dataset: Map-style; put it on the device once with `covey.learning.data.held_on`.
        fit: Which examples, for which round and node, and who listens.
        recipe: What the run's method changes; default nothing.
        inputs: What the recipe gets; default nothing but the model's own layout.

    Raises:
        TaskError: The task's code failed, the loss is not finite, or there are no examples.
        SpecError: The settings make no sense in this round.
    """
    with ready(model, fit, "local training"):
        if recipe is not None and not recipe.trains:
            return _told(task, model, dataset, fit, recipe, inputs)
        result = fit_of(task, model, dataset, fit)
        return result if result is not None else _loop(task, model, dataset, fit, recipe or PlainRecipe(), inputs)


def gradient(
    task: Task,
    model: nn.Module,
    dataset: Dataset[Any],
    fit: FitSettings,
    *,
    recipe: Recipe | None = None,
    inputs: RecipeInputs | None = None,
) -> tuple[dict[str, Tensor], FitResult]:
    """The gradient over the round's first batch, averaged over its examples; the parameters stay as they are.

    Args: as for `train`; nobody is told of its one step.

    Returns:
        The gradient of each trainable parameter by name (zeros where the loss does not depend on it), and the
        result.

    Raises:
        SpecError: The task has a training of its own, which cannot be asked for a gradient.
        TaskError: As for `train`.
    """
    if task.own_fit:
        raise SpecError(
            f'exchange.payload: "gradient" needs the built-in loop, and {type(task).__name__} has its own fit'
        )
    with ready(model, fit, "local gradient"):
        return _first_gradient(task, model, dataset, fit, recipe or PlainRecipe(), inputs)


def evaluate(
    task: Task,
    model: nn.Module,
    dataset: Dataset[Any],
    batch_size: int,
    device: torch.device,
    indices: Tensor | None = None,
    each_batch: Callable[[], object] | None = None,
) -> dict[str, Stat]:
    """The task's metrics over a whole data set, or some of it; the model is put into evaluation mode.

    A metric that is not a number in some batch is missing over the whole, and says so (`Stat.why_missing`).

    Args:
        task: Gives the metrics.
        model: Moved to `device`.
        dataset: Map-style.
        batch_size: Examples at a time.
        device: Where to compute.
        indices: int64 [n], the examples to look at; default all.
        each_batch: Called after every batch; what it raises ends the evaluation.

    Raises:
        TaskError: The task's code failed, or `Task.evaluate` returned something else than metrics.
    """
    model.to(device).eval()
    metrics: dict[str, Stat] = {}
    # Not inference_mode: what a module caches in it could not be used when the model is trained afterwards.
    with torch.no_grad(), task_errors("evaluation"):
        order = torch.arange(size_of(dataset)) if indices is None else indices
        for batch in batches(dataset, order, batch_size, device, collate_of(task)):
            metrics = merge(metrics, stats_of(task.evaluate(model, batch), method_of(task, "evaluate")))
            if each_batch is not None:
                each_batch()
    return metrics


def steps_in_round(settings: TrainingSection, examples: int) -> int:
    """How many optimizer steps one round of local training takes."""
    if settings.local_steps is not None:
        return settings.local_steps
    size = settings.batch_size
    in_epoch = max(1, examples // size) if settings.drop_last else -(-examples // size)
    return (settings.local_epochs or 1) * in_epoch


def _loop(
    task: Task, model: nn.Module, dataset: Dataset[Any], fit: FitSettings, recipe: Recipe, inputs: RecipeInputs | None
) -> FitResult:
    settings = fit.training
    recipe.begin(_context(task, model, dataset, fit, inputs))
    own = settings.model_copy(update={"learning_rate": settings.learning_rate * recipe.rate})
    optimizer = local_optimizer(model.parameters(), own, fit.round, fit.rounds)
    precision = autocast(fit)
    steps = steps_in_round(settings, len(fit.indices))
    # The sum stays on the device: reading it in every step would wait for the device in every step.
    total, examples = torch.zeros((), dtype=torch.float64, device=fit.device), 0
    due = time.monotonic() + PROGRESS_INTERVAL_S
    for step, batch in zip(range(1, steps + 1), _batches(task, dataset, fit, steps), strict=False):
        output = _backward(task, model, batch, recipe, precision)
        recipe.before_step(model)
        _clip(model, settings.clip_norm)
        optimizer.step()
        recipe.after_step(model)
        total.add_(output.loss.detach(), alpha=output.examples)
        examples += output.examples
        fit.each_step()
        if (now := time.monotonic()) >= due:
            due = now + PROGRESS_INTERVAL_S
            fit.progress(step, steps, _finite(total.item()) / examples)
    metrics = {"loss": Stat(_finite(total.item()), examples)}
    return FitResult(len(fit.indices), steps, metrics, recipe.finish())


def _told(
    task: Task, model: nn.Module, dataset: Dataset[Any], fit: FitSettings, recipe: Recipe, inputs: RecipeInputs | None
) -> FitResult:
    """What a recipe sends that does not train."""
    recipe.begin(_context(task, model, dataset, fit, inputs))
    fit.each_step()
    return FitResult(len(fit.indices), 0, {}, recipe.finish())


def _first_gradient(
    task: Task, model: nn.Module, dataset: Dataset[Any], fit: FitSettings, recipe: Recipe, inputs: RecipeInputs | None
) -> tuple[dict[str, Tensor], FitResult]:
    recipe.begin(_context(task, model, dataset, fit, inputs))
    output = _backward(task, model, next(_batches(task, dataset, fit, 1)), recipe, autocast(fit))
    recipe.before_step(model)
    _clip(model, fit.training.clip_norm)
    loss = _finite(output.loss.item())
    gradients = {name: _taken(p) for name, p in unwrapped(model).named_parameters() if p.requires_grad}
    metrics = {"loss": Stat(loss * output.examples, output.examples)}
    return gradients, FitResult(len(fit.indices), 1, metrics, recipe.finish())


def _backward(
    task: Task, model: nn.Module, batch: Any, recipe: Recipe, precision: AbstractContextManager[object]
) -> LossOutput:
    with precision:
        with _single_example_hint():
            output = loss_of(task, model, batch)
        loss = recipe.loss(model, batch, output)
    if not loss.requires_grad:
        raise TaskError(
            f"the loss of {method_of(task, 'loss')} does not depend on a trainable parameter: it must not be detached, "
            "made into a number, or computed under torch.no_grad()"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    return output


@contextmanager
def _single_example_hint() -> Iterator[None]:
    """Say what to do where BatchNorm gets a batch of one example."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TaskError(
            f"{error}: BatchNorm cannot be trained on a batch of one example, such as the last one of an epoch; write "
            "training.drop_last = true, choose another batch_size, or use GroupNorm or LayerNorm"
        ) from error


def _batches(task: Task, dataset: Dataset[Any], fit: FitSettings, steps: int) -> Iterator[Any]:
    """The batches of so many steps, or more."""
    workers, size, collate = fit.training.workers, fit.training.batch_size, collate_of(task)
    if not workers or (collate is None and is_plain(dataset)):
        for order in _epochs(fit):
            yield from batches(dataset, order, size, fit.device, collate)
    rows = itertools.islice((rows for order in _epochs(fit) for rows in torch.split(order, size)), steps)
    seed = derive_seed(fit.seed, "loading", fit.round, fit.roster_index)
    yield from prefetched(dataset, rows, fit.device, collate, workers=workers, seed=seed)


def _epochs(fit: FitSettings) -> Iterator[Tensor]:
    """The examples of each epoch in their order, as places in the data set; without end."""
    size, count = fit.training.batch_size, len(fit.indices)
    used = count - count % size if fit.training.drop_last and count > size else count
    for order in orders(fit):
        yield fit.indices[order[:used]]


def orders(fit: FitSettings) -> Iterator[Tensor]:
    """The order of the node's examples, epoch after epoch, without end: int64 `[n]` places in `fit.indices`."""
    generator = torch.Generator().manual_seed(derive_seed(fit.seed, "batches", fit.round, fit.roster_index))
    while True:
        yield torch.randperm(len(fit.indices), generator=generator)


def _context(
    task: Task, model: nn.Module, dataset: Dataset[Any], fit: FitSettings, inputs: RecipeInputs | None
) -> RecipeContext:
    def labels() -> Tensor | None:
        known = task.labels(dataset)
        return None if known is None else known.to("cpu", torch.int64)[fit.indices]

    def examples(places: Tensor) -> Any:
        rows = fit.indices[places]
        return next(iter(batches(dataset, rows, max(1, len(rows)), fit.device, collate_of(task))))

    generator = torch.Generator().manual_seed(derive_seed(fit.seed, "recipe", fit.round, fit.roster_index))
    inputs = inputs or RecipeInputs(layout_of(model))
    return RecipeContext(
        task=task,
        model=model,
        training=fit.training,
        round=fit.round,
        rounds=fit.rounds,
        roster_index=fit.roster_index,
        generator=generator,
        seed=fit.seed,
        device=fit.device,
        inputs=inputs,
        labels=labels,
        examples=examples,
        table=partial(table_of, task, dataset, fit.indices),
        size=len(fit.indices),
    )


def autocast(fit: FitSettings) -> AbstractContextManager[object]:
    """Autocast to bf16 where the run asks for it and the device has it."""
    has_bf16 = fit.device.type == "cpu" or (fit.device.type == "cuda" and torch.cuda.is_bf16_supported(False))
    if fit.training.precision == "bf16" and has_bf16:
        return torch.autocast(fit.device.type, dtype=torch.bfloat16)
    return nullcontext()


def _clip(model: nn.Module, clip_norm: float | None) -> None:
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)


def _taken(parameter: Tensor) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient.detach()


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise TaskError(
            "training diverged: the loss is not finite; lower training.learning_rate, "
            "set training.clip_norm, or look for NaN in this node's data"
        )
    return value


@contextmanager
def ready(model: nn.Module, fit: FitSettings, what: str) -> Iterator[None]:
    """With the model on its device, randomness seeded, and errors of the task's own code named."""
    if not len(fit.indices):
        raise TaskError("this node's part of the training data is empty; check its data paths and [data] partition")
    model.to(fit.device).train()
    with _seeded(fit), task_errors(what):
        yield


@contextmanager
def _seeded(fit: FitSettings) -> Iterator[None]:
    seed = derive_seed(fit.seed, "training", fit.round, fit.roster_index)
    seed_torch(seed)
    # Data sets of the user's own may draw from either of these.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Equals torch.use_deterministic_algorithms, which also imports the compiler (a second and more).
    before = torch.get_deterministic_debug_mode()
    if fit.training.deterministic == "require":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
