"""What a model makes of a batch before its predictor: the features, as they pass by in the task's own loss."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from covey.errors import SpecError, TaskError
from covey.learning.models.entries import unwrapped
from covey.learning.returns import method_of
from covey.learning.task import LossOutput, Split, Task, task_errors

TOLERANCE = 1e-3
"""By how much, relatively, the mean of the examples' losses may be off the task's loss."""


def blank_model_of(task: Task) -> nn.Module:
    """A new model of a task, without values where its code allows that. Raises TaskError where it fails."""
    with suppress(Exception), torch.device("meta"):
        return task.model()
    with task_errors("Task.model"):
        return task.model()


def split_of(task: Task, model: nn.Module, method: str) -> Split:
    """Extractor and predictor of a model.

    Raises:
        SpecError: The task names none; the message says what to do.
    """
    with task_errors("Task.split"):
        split = task.split(unwrapped(model))
    if split is None:
        raise SpecError(
            f'method.name: "{method}" needs the features before the predictor, and the task names none; give it a '
            "`split` that returns Split(extractor, predictor), such as Split(model[:-1], model[-1])"
        )
    return split


class Features:
    """Takes down what goes into a model's predictor, as long as this object lives.

    Args:
        task: Names the predictor.
        model: In training.
        method: Who asks, for messages.

    Raises:
        SpecError: The task names no predictor.
    """

    def __init__(self, task: Task, model: nn.Module, method: str) -> None:
        self._seen: Tensor | None = None
        self._what = method_of(task, "split")
        me = weakref.ref(self)

        def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            owner = me()
            if owner is not None and owner._seen is None and inputs and isinstance(inputs[0], Tensor):
                owner._seen = inputs[0]

        predictor = split_of(task, model, method).predictor
        handles = [module.register_forward_pre_hook(note) for module in predictor.modules()]
        weakref.finalize(self, _remove, handles)

    def taken(self) -> Tensor:
        """The features of the forward pass since the last time, `[n, width]`, with their gradient.

        Raises:
            TaskError: The predictor was not asked.
        """
        seen, self._seen = self._seen, None
        if seen is None:
            raise TaskError(
                f"the loss did not ask the predictor that {self._what} names; make it of the model's own modules"
            )
        return seen.flatten(1)


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def losses_of(task: Task, output: LossOutput) -> Tensor:
    """The loss of each example of a batch, `[n]`: those that the task gives, else the cross entropy of its logits.

    Raises:
        TaskError: The task gives neither, or their mean is not its loss.
    """
    each, what = output.each, method_of(task, "loss")
    if each is None:
        if output.logits is None or output.targets is None or output.targets.ndim != 1:
            raise TaskError(
                f"{what} says nothing of single examples; give `each`, the loss of each example, in its LossOutput"
            )
        each = functional.cross_entropy(output.logits, output.targets, reduction="none")
    mean, loss = each.detach().float().mean(), output.loss.detach().float()
    if each.ndim != 1 or not torch.isclose(mean, loss, rtol=TOLERANCE, atol=1e-6):
        raise TaskError(
            f"the losses of single examples (`each` in what {what} returns; without it the cross entropy of its "
            f"logits) have the mean {mean.item():.6g}, and the loss is {loss.item():.6g}; give `each`, [n], whose mean "
            "is the loss"
        )
    return each
