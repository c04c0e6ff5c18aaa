"""What lives on of a generator with a version: what nodes get, and what its training goes on from; as flat vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covey.layout import Layout, TensorSpec
from covey.learning.optimizers import Adam
from covey.methods.latents import Generator

GENERATOR, TRAINING = "generator", "generator-training"
"""Names of the parts."""
SHARES, STEPS = "label-shares", "steps"
MOMENTS = ("exp_avg", "exp_avg_sq")


def generator_layouts(network: Generator) -> tuple[Layout, Layout]:
    """The layouts of both parts, float32; `network` may have no values.

    `GENERATOR` is weights, BatchNorm statistics and shares of labels; `TRAINING` weights, statistics, Adam's moments
    and the number of its steps.
    """
    values = [TensorSpec(name, "float32", tuple(t.shape)) for name, t in _values(network).items()]
    shares = TensorSpec(SHARES, "float32", (network.classes,))
    moments = [
        TensorSpec(f"{moment}/{name}", "float32", tuple(t.shape))
        for moment in MOMENTS
        for name, t in network.named_parameters()
    ]
    return Layout((*values, shares)), Layout((*values, *moments, TensorSpec(STEPS, "float32", (1,))))


class LastingAdam(Adam):
    """Adam that goes on where an earlier one was; all parameters have a gradient at each step."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__({})
        self.begin(parameters, 0.0, 0.0)

    @property
    def steps(self) -> int:
        """How many it has taken."""
        return self._ages[0]

    @property
    def moments(self) -> tuple[list[Tensor], list[Tensor]]:
        """The first and the second of each parameter."""
        first, second = self._slots
        return first, second

    def go_on(self, moments: Sequence[Iterable[Tensor]], steps: int) -> None:
        """After so many steps, with these moments, which are copied."""
        self._ages = [steps] * len(self._ages)
        self._slots = [[value.clone() for value in values] for values in moments]


class GeneratorState:
    """A generator in training.

    Args:
        network: The generator, with its first values; takes on those of the version before.
        broadcast: That version's part `GENERATOR`; None: there is none.
        training: Its part `TRAINING`; None: there is none.

    Attributes:
        optimizer: Adam over its weights.
        labels: Shares by which labels are drawn, float32 `[classes]`; zeros: it was never trained.
    """

    def __init__(self, network: Generator, broadcast: Tensor | None, training: Tensor | None) -> None:
        self._network, self.labels = network, torch.zeros(network.classes)
        self.optimizer = LastingAdam(network.parameters())
        if broadcast is not None:
            self._sent, rest = _cut(broadcast, _values(network))
            self.labels = rest.clone()
        if training is None or broadcast is None:
            self._sent = {name: value.clone() for name, value in _values(network).items()}
            self._is_new = True
            return
        own, rest = _cut(training, _values(network))
        self._load(own, rest)
        self._is_new = not self.optimizer.steps

    def _load(self, values: Mapping[str, Tensor], rest: Tensor) -> None:
        with torch.no_grad():
            for name, value in _values(self._network).items():
                value.copy_(values[name])
        first, rest = _cut(rest, dict(self._network.named_parameters()))
        second, steps = _cut(rest, dict(self._network.named_parameters()))
        self.optimizer.go_on((first.values(), second.values()), int(steps.item()))

    def trained(self, ema: float, labels: Tensor) -> None:
        """The network was trained: what is sent follows it, and labels are drawn by these shares from now on."""
        factor, self.labels = 0.0 if self._is_new else ema, labels
        for name, value in _values(self._network).items():
            self._sent[name] = value.detach().clone() if not factor else self._sent[name].lerp(value, 1 - factor)
        self._is_new = False

    @property
    def is_finite(self) -> bool:
        """Whether all values of both parts are."""
        return bool(torch.isfinite(self.broadcast()).all() and torch.isfinite(self.training()).all())

    @torch.no_grad()
    def broadcast(self) -> Tensor:
        """Part `GENERATOR`."""
        return torch.cat([*(value.detach().reshape(-1) for value in self._sent.values()), self.labels])

    @torch.no_grad()
    def training(self) -> Tensor:
        """Part `TRAINING`."""
        moments = [value for values in self.optimizer.moments for value in values]
        steps = torch.tensor([float(self.optimizer.steps)])
        return torch.cat([*(value.reshape(-1) for value in (*_values(self._network).values(), *moments)), steps])


@dataclass(frozen=True)
class Broadcast:
    """A generator as a node has it, in evaluation mode.

    Attributes:
        network: On the run's device.
        labels: Shares by which labels are drawn, float32 `[classes]`, on the CPU.
    """

    network: Generator
    labels: Tensor

    @classmethod
    def load(cls, network: Generator, flat: Tensor, device: torch.device) -> Broadcast | None:
        """From part `GENERATOR`; None: the generator was never trained."""
        values, labels = _cut(flat, _values(network))
        if not labels.sum() > 0:
            return None
        with torch.no_grad():
            for name, value in _values(network).items():
                value.copy_(values[name])
        return cls(network.to(device).eval(), labels.clone())

    @torch.no_grad()
    def sample(self, labels: Tensor, source: torch.Generator) -> Tensor:
        """Z `[n, width]` of these labels, on their device, in the network's evaluation mode."""
        return self.network.sample(labels, source)[0]


def _values(network: nn.Module) -> dict[str, Tensor]:
    """Weights and float buffers (BatchNorm's mean and variance), in their order."""
    return {name: value for name, value in network.state_dict(keep_vars=True).items() if value.is_floating_point()}


def _cut(flat: Tensor, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors at the beginning of a vector, by name, and what is behind them."""
    values, at = {}, 0
    for name, tensor in like.items():
        values[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    return values, flat[at:]
