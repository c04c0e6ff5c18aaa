"""Local training in which only some of a node's examples have labels, and views of the others are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from covey.errors import CoveyError, TaskError
from covey.learning.recipe import PlainRecipe, RecipeContext
from covey.learning.representations.features import Features, blank_model_of, split_of
from covey.learning.representations.gather import gathering
from covey.learning.representations.neighbours import Support
from covey.learning.returns import method_of
from covey.learning.task import LossOutput, loss_of
from covey.methods.averaging import Averaging
from covey.methods.contract import Combination, PluginOptions
from covey.seeds import derive_seed


class SemiSupervisedOptions(PluginOptions):
    """What `paws` and `suncet` have in common."""

    labelled: int = Field(default=10, ge=1)
    """How many of a node's examples of each label have one; the labels of the others are not learned from."""
    support: int = Field(default=4, ge=1)
    """How many labelled examples of each label a step takes."""
    temperature: float = Field(default=0.1, gt=0)
    """tau: cosines are divided by it."""
    weight: float = Field(default=1.0, ge=0)
    """How much what is compared counts; 0: only the labelled examples are learned from."""
    supervised: float = Field(default=1.0, ge=0)
    """How much the task's own loss on the labelled examples of a step counts."""


class SemiSupervised(Averaging):
    """What `paws` and `suncet` have in common as methods."""

    Options = SemiSupervisedOptions
    options: SemiSupervisedOptions
    modes: ClassVar[frozenset[str]] = frozenset({"rounds"})

    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        """A task without views, or without features."""
        name = run.spec.method.name
        if not run.task.has_views:
            text = (
                f'"{name}" compares views of the same examples, and task {run.spec.task.name!r} makes none; give it a '
            )
            yield "method.name", text + "`view(batch, generator)` that changes examples at random"
        try:
            split_of(run.task, blank_model_of(run.task), name)
        except CoveyError as error:
            yield "method.name", str(error).removeprefix("method.name: ")


class Embedded(NamedTuple):
    """What the model makes of a batch: the task's loss, and features with gradient, `[n, width]`."""

    output: LossOutput
    features: Tensor


class Viewed(PlainRecipe):
    """Two views of each batch, and labelled examples beside it; what is made of them is the method's.

    The labels of the batch itself have no part in what is minimised; the reported loss has them.
    """

    name: ClassVar[str]

    def __init__(self, options: SemiSupervisedOptions) -> None:
        self._options = options

    @abstractmethod
    def compared(self, first: Tensor, second: Tensor, support: Support) -> Tensor:
        """The loss among the features of two views, and those of labelled examples: a scalar."""

    def begin(self, context: RecipeContext) -> None:
        """Which examples have labels: in each round the same ones."""
        self.context, self._task, self.gather = context, context.task, gathering()
        labels = context.labels()
        if labels is None:
            raise TaskError(f'"{self.name}" needs some labels, and this task names none; give it `labels`')
        self._tap = Features(context.task, context.model, self.name)
        self.labels, self.known = labels, labelled_places(context, labels, self._options.labelled)

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """What is compared, and the loss of the labelled examples."""
        self._tap.taken()
        options, rows = self._options, self._drawn()
        labelled = self.embedded(model, self._viewed(self.context.examples(rows)))
        loss = options.supervised * labelled.output.loss
        if options.weight:
            first, second = (self.embedded(model, self._viewed(batch)).features for _ in range(2))
            support = Support(labelled.features, self.one_hot(labelled, self.labels[rows]))
            loss = loss + options.weight * self.compared(first, second, support)
        return loss

    def embedded(self, model: nn.Module, batch: Any) -> Embedded:
        """What the model makes of a batch."""
        output = loss_of(self._task, model, batch)
        return Embedded(output, self._tap.taken().float())

    def one_hot(self, embedded: Embedded, labels: Tensor) -> Tensor:
        """Labels, int64 `[n]`, as rows: float32 `[n, classes]`.

        Raises:
            TaskError: There are other labels than the model has outputs for.
        """
        logits = embedded.output.logits
        if logits is None or logits.ndim != 2 or int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
            raise TaskError(
                f'"{self.name}" needs the logits [n, classes] of what {method_of(self._task, "loss")} returns, with a '
                "class for each label"
            )
        return functional.one_hot(labels, logits.shape[1]).to(embedded.features.device, torch.float32)

    def _viewed(self, batch: Any) -> Any:
        return self._task.view(batch, self.context.generator)

    def _drawn(self) -> Tensor:
        """Labelled examples for a step, as many of each label: int64 `[n]`, places among the node's examples."""
        count, drawn = self._options.support, []
        for places in self.known:
            orders = [
                torch.randperm(len(places), generator=self.context.generator) for _ in range(-(-count // len(places)))
            ]
            drawn.append(places[torch.cat(orders)[:count]])
        return torch.cat(drawn)


def labelled_places(context: RecipeContext, labels: Tensor, most: int) -> list[Tensor]:
    """Which of a node's examples have labels, drawn from the run's seed: for each label, int64 places in `labels`."""
    seed = derive_seed(context.seed, "labelled", context.roster_index)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return [order[labels[order] == label][:most] for label in sorted(set(labels.tolist()))]
