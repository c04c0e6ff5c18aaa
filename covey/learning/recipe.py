"""What a method changes in local training: extra loss terms, changed gradients, a pull after the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.layout import Layout
from covey.learning.schedules import factor
from covey.learning.task import LossOutput, Task
from covey.spec import TrainingSection


def _none() -> None:
    """No common data."""


@dataclass(frozen=True)
class RecipeInputs:
    """What a recipe gets beside the model; each vector is flat, on the CPU, and not to be written.

    Attributes:
        layout: Of the model as it is exchanged; what of it is trained is `layout.part("model")`.
        parts: What came down, by part.
        state: The node's state of this method by part, as it is kept; the recipe replaces what changes.
        others: What came down of parts that are collected, by part and node; each is opened when it is looked up.
        common: Gives the task's common data, on the device where possible; they are loaded when first asked for.
        min_k: Of how few examples this node's operator lets something be said; 0: of none at all.
        label_counts: What this node's operator lets be said of how many examples of each label there are.
    """

    layout: Layout
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    state: MutableMapping[str, Tensor] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    common: Callable[[], Dataset[Any] | None] = _none
    min_k: int = 0
    label_counts: Literal["off", "noisy", "exact"] = "off"


@dataclass(frozen=True)
class RecipeContext:
    """What a recipe knows when a round's local training begins.

    Attributes:
        task: The run's task as it is here.
        model: On its device, holding the round's base values: clone from it what is needed as an anchor.
        training: The run's [training] section.
        round: Counts from 1.
        rounds: How many rounds the run has.
        roster_index: This node's place in the run's roster.
        generator: A stream of the recipe's own, on the CPU.
        seed: The run's; for what all nodes must draw alike, use `covey.seeds.derive_seed`.
        device: Where to compute.
        inputs: What there is beside the model.
        labels: The label of each of this node's examples, int64 `[n]` on the CPU; None where the task names none.
        examples: Makes a batch of some of this node's examples, on the device; takes int64 `[m]`, places in `labels`.
        table: The columns of this node's examples, as `covey.learning.table.table_of`, which can be told to `cut`; None
            where the task names none.
        size: How many examples the node has.
    """

    task: Task
    model: nn.Module
    training: TrainingSection
    round: int
    rounds: int
    roster_index: int
    generator: torch.Generator
    seed: int
    device: torch.device
    inputs: RecipeInputs
    labels: Callable[[], Tensor | None] = lambda: None
    examples: Callable[[Tensor], Any] = lambda _: None
    table: Callable[..., Mapping[str, NDArray[np.float64]] | None] = lambda **_: None
    size: int = 0

    @property
    def learning_rate(self) -> float:
        """The node's in this round, with its schedule."""
        section = self.training
        return section.learning_rate * factor(section.schedule.get("learning_rate"), self.round, self.rounds)


class Recipe(ABC):
    """The hooks in the built-in training loop, in the order in which they are called.

    Attributes:
        rate: A factor on the learning rate of this node's optimizer in this round; looked at after `begin`.

    Class attributes:
        trains: Whether there is a training. Without one no step is taken, also where the task has a `fit` of its own:
            `begin` is called, then `finish`.
    """

    trains: ClassVar[bool] = True
    rate: float = 1.0

    @abstractmethod
    def begin(self, context: RecipeContext) -> None:
        """Once, before the first step."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The scalar to minimise in this step, given the task's own loss."""

    @abstractmethod
    def before_step(self, model: nn.Module) -> None:
        """After backward and before clipping: the gradients are in the parameters' `.grad`."""

    @abstractmethod
    def after_step(self, model: nn.Module) -> None:
        """After the optimizer's step."""

    @abstractmethod
    def finish(self) -> Mapping[str, Tensor | bytes]:
        """Once, after the last step: the parts that go up beside the model, each a flat vector on the CPU, or bytes."""


class PlainRecipe(Recipe):
    """Changes nothing; recipes that use few of the hooks inherit from it."""

    def begin(self, context: RecipeContext) -> None:
        """Nothing to prepare."""

    def loss(self, model: nn.Module, batch: Any, base: LossOutput) -> Tensor:
        """The task's own loss."""
        return base.loss

    def before_step(self, model: nn.Module) -> None:
        """Leave the gradients as they are."""

    def after_step(self, model: nn.Module) -> None:
        """Leave the parameters as they are."""

    def finish(self) -> Mapping[str, Tensor | bytes]:
        """No parts but the model."""
        return {}
