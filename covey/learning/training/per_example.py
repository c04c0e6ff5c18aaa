"""The gradient that `dp-sign` encodes: a sum over examples, each clipped by itself over all tensors at once.

Abadi et al., "Deep learning with differential privacy" (CCS 2016, arXiv 1607.00133), algorithm 1, without noise and
without the division by the batch's size: what one example contributes moves the sum by at most the clip norm (but for
float32 rounding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils.data import Dataset

from covey.errors import SpecError, TaskError
from covey.learning.data import batches
from covey.learning.models.entries import unwrapped
from covey.learning.task import FitResult, FitSettings, Task, collate_of, loss_of
from covey.learning.training import loop

GRADIENTS_BYTES = 16 << 20
"""Gradients of single examples are held together up to this size; more is slower, for the memory is always new."""
NORM_PIECE = 1 << 14
"""Elements whose norm is taken in float32."""
Gradients = dict[str, Tensor]
_ORDERS = {"l1": 1, "l2": 2}


def per_example_sum(
    task: Task,
    model: nn.Module,
    dataset: Dataset[Any],
    fit: FitSettings,
    *,
    clip: float,
    norm: Literal["l1", "l2"] = "l2",
) -> tuple[Gradients, FitResult]:
    """The sum over the round's first batch of each example's gradient, clipped; the parameters stay as they are.

    The batch is that of `covey.learning.training.loop.gradient`. Each example's gradient g of the task's loss becomes
    g min(1, clip / ||g||), the norm over all trainable parameters together. `fit.training.clip_norm` has no part in
    this.

    Args:
        task: Gives the loss; it is asked for one example at a time (a batch of one), many at once by
            `torch.func.vmap` where the task's code allows it, else one after the other.
        model: As for `covey.learning.training.loop.train`.
        dataset: Map-style.
        fit: Which examples, for which round and node; `each_step` is called after every few examples.
        clip: No example has more than this norm in the sum.
        norm: Which norm: l2 for Gaussian noise, l1 for Laplace noise.

    Returns:
        The sum for each trainable parameter by name, and a result that says nothing of the data: no metrics, and one
        example, for each number that a node tells would have to be paid for like the gradient.

    Raises:
        SpecError: The task has a training of its own, or the model has layers that mix the examples (BatchNorm).
        TaskError: The task's code failed, a gradient is not finite, or there are no examples.
    """
    model = unwrapped(model)
    refuse_what_mixes(task, model, 'exchange.codec: "dp-sign"')
    with loop.ready(model, fit, "per-example gradients"):
        chosen = fit.indices[next(loop.orders(fit))[: fit.training.batch_size]]
        total = clipped_sum(task, model, dataset, fit, chosen, clip, norm)
    return total, FitResult(1, 1, {})


def refuse_what_mixes(task: Task, model: nn.Module, asked_by: str) -> None:
    """Refuse what gives no gradients of single examples.

    Args:
        task: The run's.
        model: Its model.
        asked_by: What wants them: the key, and its value.

    Raises:
        SpecError: The task has a training of its own, or the model has layers that mix the examples (BatchNorm).
    """
    if task.own_fit:
        text = f"needs the built-in loop, and {type(task).__name__} has its own fit; choose another"
        raise SpecError(f"{asked_by} {text}")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) or (isinstance(module, _NormBase) and module.track_running_stats):
            text = f"clips each example by itself, and the model's {name!r} ({type(module).__name__}) mixes them"
            raise SpecError(f"{asked_by} {text}; choose a model with GroupNorm or LayerNorm")


def clipped_sum(
    task: Task,
    model: nn.Module,
    dataset: Dataset[Any],
    fit: FitSettings,
    chosen: Tensor,
    clip: float,
    norm: Literal["l1", "l2"] = "l2",
) -> Gradients:
    """The sum of some examples' gradients, each clipped, as in `per_example_sum`; zeros of no examples.

    Args:
        task: Gives the loss.
        model: On its device, in training mode.
        dataset: Map-style.
        fit: `each_step` is called after every few examples.
        chosen: Which examples, int64 `[m]`.
        clip: No example has more than this norm in the sum.
        norm: Which norm.

    Raises:
        TaskError: A gradient is not finite.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total, order = {name: torch.zeros_like(p) for name, p in parameters.items()}, _ORDERS[norm]
    with loop.autocast(fit):
        for gradients in _each(_Loss(task, model), parameters, dataset, chosen, fit):
            factors = _factors(gradients, clip, order)
            for name, rows in gradients.items():
                total[name] += torch.tensordot(factors.to(rows.dtype), rows, dims=1)
            fit.each_step()
    return total


def _factors(gradients: Gradients, clip: float, order: int) -> Tensor:
    """What each example's gradient is multiplied with: float64 `[m]`."""
    # A float32 sum over millions of elements is off by some thousandths; over pieces it is exact enough, and fast.
    pieces = [piece for g in gradients.values() for piece in torch.split(g.flatten(1), NORM_PIECE, dim=1)]
    rows = [torch.linalg.vector_norm(piece, order, dim=1).double() for piece in pieces]
    norms = torch.linalg.vector_norm(torch.stack(rows), order, dim=0)
    if not torch.isfinite(norms).all():
        raise TaskError("an example's gradient is not finite; look for NaN in this node's data")
    factors: Tensor = clip / norms.clamp(min=clip)
    return factors


class _Loss(nn.Module):
    """The task's loss as a module, whose parameters can be given from outside."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = loss_of(self.task, self.model, batch).loss
        return loss


def _each(
    loss: _Loss, parameters: Mapping[str, nn.Parameter], dataset: Dataset[Any], chosen: Tensor, fit: FitSettings
) -> Iterator[Gradients]:
    """Gradients of single examples, some at a time: `[m, ...]` by name."""
    size = sum(p.numel() * p.element_size() for p in parameters.values())
    width = max(1, GRADIENTS_BYTES // max(1, size))
    if not parameters or not len(chosen):
        return
    one_by_one, collate = width == 1, collate_of(loss.task)
    for rows in torch.split(chosen, width):
        if not one_by_one:
            try:
                yield _together(loss, parameters, next(iter(batches(dataset, rows, len(rows), fit.device, collate))))
                continue
            except (RuntimeError, ValueError, TypeError):
                # Not every task's code can be mapped over examples; an error of its own comes again below.
                one_by_one = True
        for batch in batches(dataset, rows, 1, fit.device, collate):
            yield _alone(loss, parameters, batch)


def _together(loss: _Loss, parameters: Mapping[str, nn.Parameter], batch: Any) -> Gradients:
    def of_one(values: Mapping[str, Tensor], example: Any) -> Tensor:
        named = {f"model.{name}": value for name, value in values.items()}
        loss_value: Tensor = functional_call(loss, named, (_batch_of(example),))
        return loss_value

    values = {name: p.detach() for name, p in parameters.items()}
    gradients: Gradients = vmap(grad(of_one), in_dims=(None, 0), randomness="different")(values, batch)
    return gradients


def _batch_of(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example.unsqueeze(0)
    if isinstance(example, Mapping):
        return {key: _batch_of(value) for key, value in example.items()}
    if isinstance(example, tuple) and hasattr(example, "_fields"):
        return type(example)(*(_batch_of(value) for value in example))
    if isinstance(example, (list, tuple)):
        return tuple(_batch_of(value) for value in example)
    return example


def _alone(loss: _Loss, parameters: Mapping[str, nn.Parameter], batch: Any) -> Gradients:
    gradients = torch.autograd.grad(loss(batch), list(parameters.values()), allow_unused=True)
    return {
        name: (torch.zeros_like(p) if g is None else g).unsqueeze(0)
        for (name, p), g in zip(parameters.items(), gradients, strict=True)
    }
