"""The optimizers of local training.

They take the same steps as `torch.optim`'s (bit for bit on the CPU), but without its wrappers: those cost
40 microseconds a step, as much as a small model's forward pass, and importing the compiler behind them takes
more than a second in every worker.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from covey.errors import SpecError
from covey.learning.schedules import factor
from covey.learning.section_plugins import SectionPlugin, options_in
from covey.options import PluginOptions
from covey.plugins import Kind
from covey.spec import TrainingSection
from covey.spec.sections import Beta

ADAM_EPSILON = 1e-8


class LocalOptimizer(SectionPlugin):
    """Steps over a fixed list of parameters; one without a gradient is left out of the step, as in torch.

    A new one is made for each round of local training, with the options as the round's schedules have them.
    """

    learning_rate: float
    weight_decay: float

    def slots(self) -> int:
        """How many state vectors it keeps for each parameter, zero at first."""
        return 0

    def begin(self, parameters: Iterable[Tensor], learning_rate: float, weight_decay: float) -> None:
        """Once, before the first step.

        Args:
            parameters: Those that need no gradient are ignored.
            learning_rate: Of this round.
            weight_decay: Of this round.
        """
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._parameters = [p for p in parameters if p.requires_grad]
        self._ages = [0] * len(self._parameters)
        self._slots = [[torch.zeros_like(p) for p in self._parameters] for _ in range(self.slots())]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients, and forget the gradients."""
        by_age: dict[int, list[int]] = {}
        for i, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                by_age.setdefault(self._ages[i], []).append(i)
        for age, members in by_age.items():
            parameters = [self._parameters[i] for i in members]
            gradients = [p.grad for p in parameters if p.grad is not None]
            self.update(parameters, gradients, [[slot[i] for i in members] for slot in self._slots], age + 1)
            for i in members:
                self._ages[i] = age + 1
                self._parameters[i].grad = None

    @abstractmethod
    def update(self, parameters: list[Tensor], gradients: list[Tensor], slots: list[list[Tensor]], age: int) -> None:
        """One step of some parameters.

        Args:
            parameters: To be changed in place.
            gradients: One for each, of its shape; not to be changed.
            slots: `slots()` lists of one state vector for each, to be changed in place.
            age: Which step of theirs this is, from 1.
        """


LOCAL_OPTIMIZERS = Kind("local-optimizer", "covey.local_optimizers", LocalOptimizer, "training", "optimizer")


class SGD(LocalOptimizer):
    """Stochastic gradient descent with l2 weight decay, as in torch."""

    def update(self, parameters: list[Tensor], gradients: list[Tensor], slots: list[list[Tensor]], age: int) -> None:
        """The formula: x - lr g."""
        torch._foreach_add_(parameters, self._decayed(parameters, gradients), alpha=-self.learning_rate)

    def _decayed(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        if not self.weight_decay:
            return gradients
        return list(torch._foreach_add(gradients, parameters, alpha=self.weight_decay))


class Momentum(SGD):
    """Stochastic gradient descent with l2 weight decay and momentum (heavy ball or Nesterov), as in torch."""

    class Options(PluginOptions):
        """Keys of [training] that `momentum` uses."""

        momentum: float = Field(default=0.9, ge=0, lt=1)
        nesterov: bool = False

    section_keys = ("momentum", "nesterov")
    options: Options

    def slots(self) -> int:
        """The velocity."""
        return 1 if self.options.momentum else 0

    def update(self, parameters: list[Tensor], gradients: list[Tensor], slots: list[list[Tensor]], age: int) -> None:
        """The formula: v <- mu v + g; x - lr v, or with Nesterov x - lr (g + mu v)."""
        steps, momentum = self._decayed(parameters, gradients), self.options.momentum
        if momentum:
            (velocity,) = slots
            torch._foreach_mul_(velocity, momentum)
            torch._foreach_add_(velocity, steps)
            ahead = self.options.nesterov
            steps = list(torch._foreach_add(steps, velocity, alpha=momentum)) if ahead else velocity
        torch._foreach_add_(parameters, steps, alpha=-self.learning_rate)


class Adam(LocalOptimizer):
    """Adam (Kingma and Ba 2015) with bias correction; epsilon 1e-8, added after the root; weight decay is l2."""

    class Options(PluginOptions):
        """Keys of [training] that `adam` and `adamw` use."""

        betas: tuple[Beta, Beta] = (0.9, 0.999)

    section_keys = ("betas",)
    options: Options

    def slots(self) -> int:
        """The first and the second moment."""
        return 2

    def update(self, parameters: list[Tensor], gradients: list[Tensor], slots: list[list[Tensor]], age: int) -> None:
        """The formula, after the weights have decayed."""
        first, second = self.options.betas
        means, squares = slots
        steps = self._decayed(parameters, gradients)
        torch._foreach_lerp_(means, steps, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, steps, steps, 1 - second)
        scales = list(torch._foreach_sqrt(squares))
        torch._foreach_div_(scales, (1 - second**age) ** 0.5)
        torch._foreach_add_(scales, ADAM_EPSILON)
        torch._foreach_addcdiv_(parameters, means, scales, -self.learning_rate / (1 - first**age))

    def _decayed(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The gradients with the decay in them."""
        if not self.weight_decay:
            return gradients
        return list(torch._foreach_add(gradients, parameters, alpha=self.weight_decay))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def _decayed(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The gradients as they are; the parameters decay by themselves."""
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1 - self.learning_rate * self.weight_decay)
        return gradients


def local_optimizer(parameters: Iterable[Tensor], training: TrainingSection, round: int, rounds: int) -> LocalOptimizer:
    """A fresh optimizer for one round of local training, with the round's schedule factors applied.

    Args:
        parameters: The model's.
        training: The run's [training] section.
        round: Counts from 1.
        rounds: How many rounds the run has.

    Raises:
        PluginError: The optimizer, or the kind of a schedule, is not installed here.
        SpecError: An option is wrong, or a schedule drives the momentum to 1 or beyond.
    """
    factors = {
        number: factor(training.schedule.get(number), round, rounds, f"training.schedule.{number}")
        for number in ("learning_rate", "weight_decay", "momentum")
    }
    cls = LOCAL_OPTIMIZERS.load(training.optimizer, "training")
    options = _scheduled(options_in(cls, training, "training"), factors["momentum"], round)
    optimizer = LOCAL_OPTIMIZERS.make(training.optimizer, options)
    learning_rate = training.learning_rate * factors["learning_rate"]
    optimizer.begin(parameters, learning_rate, training.weight_decay * factors["weight_decay"])
    return optimizer


def _scheduled(options: Mapping[str, Any], factor: float, round: int) -> Mapping[str, Any]:
    """The options of this round: the schedule of the momentum is for the option of this name."""
    given = options.get("momentum")
    if not isinstance(given, int | float):
        return options
    momentum = given * factor
    if momentum >= 1:
        raise SpecError(f"training.schedule.momentum: makes the momentum {momentum:g} in round {round}; keep it < 1")
    return {**options, "momentum": momentum}
