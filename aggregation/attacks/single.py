"""Attacks of an adversary that knows nothing but its own data and the model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.attacks.contract import Attack, AttackContext
from covey.errors import LayoutError
from covey.options import PluginOptions
from covey.seeds import derive_seed
from covey.vectors import FunctionVector, TensorVector, Vector

SEGMENT = 1 << 16
"""Normal numbers are drawn in segments of so many elements, so that they do not depend on how they are read."""


def scaled(source: Vector, factor: float) -> Vector:
    """A vector times a number."""
    return FunctionVector(source.d, lambda columns: source.read(columns) * factor)


def constant(d: int, value: float) -> Vector:
    """A vector whose elements are all the same."""
    return FunctionVector(d, lambda columns: torch.full((columns.stop - columns.start,), value))


def normal(d: int, std: float, seed: int) -> Vector:
    """Independent normal numbers of mean zero; element i depends on (seed, i) only (torch's CPU generator)."""
    return FunctionVector(d, lambda columns: _normal(columns, std, seed))


def _normal(columns: slice, std: float, seed: int) -> Tensor:
    out = torch.empty(columns.stop - columns.start)
    for k in range(columns.start // SEGMENT, -(-columns.stop // SEGMENT)):
        generator = torch.Generator().manual_seed(derive_seed(seed, "segment", k))
        values, first = torch.randn(SEGMENT, generator=generator), k * SEGMENT
        start, stop = max(columns.start, first), min(columns.stop, first + SEGMENT)
        out[start - columns.start : stop - columns.start] = values[start - first : stop - first]
    return out.mul_(std)


class SignFlip(Attack):
    """-scale x own vector: a step the wrong way, of the honest length by default.

    Known as sign flipping or reversed gradient; e.g. Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods"
    (AAAI 2019). Filters that compare lengths of changes cannot see it: lengths
    are the honest ones.
    """

    class Options(PluginOptions):
        """Options of sign flipping."""

        scale: float = Field(default=1.0, gt=0)

    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        return scaled(own, -self.options.scale)


class Scaled(Attack):
    """factor x own vector, by default -10: the adversary of Kardam's experiments.

    Damaskinos et al., "Asynchronous Byzantine Machine Learning (the case of SGD)" (ICML 2018).
    """

    class Options(PluginOptions):
        """Options of scaling."""

        factor: float = -10.0

    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        return scaled(own, self.options.factor)


class Gaussian(Attack):
    """Noise: independent N(0, std^2) elements, other ones for each node and round.

    Blanchard et al., "Machine Learning with Adversaries" (NeurIPS 2017), use std = 200, the default.
    """

    class Options(PluginOptions):
        """Options of noise."""

        std: float = Field(default=200.0, ge=0)

    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        return normal(own.d, self.options.std, derive_seed(context.seed, "attack", context.round, context.node))


class LabelFlip(Attack):
    """Trains honestly on labels y -> C - 1 - y, C classes, and sends what comes out.

    Data poisoning: nothing but the labels of the training batches is changed (the worker's `adversary.flipped`), and
    the vector is of honest length. C is the number of the model's outputs.
    """

    poisons_labels = True

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """The own vector, float32 `[d]`: the poison is in it already."""
        return own


class Constant(Attack):
    """The same value in every element."""

    class Options(PluginOptions):
        """Options of a constant."""

        value: float = 1.0

    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        return constant(own.d, self.options.value)


class NotANumber(Attack):
    """NaN in every element: the coordinator must reject it before any rule sees it.

    A codec that has no form for NaN may refuse to encode it; then the adversary declines the round.
    """

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        return constant(own.d, math.nan)


class StaleReplay(Attack):
    """Sends an old vector again: its own of the first round in which it took part, or a new one now and then.

    What it remembers: `vector`, and `since`, the round that is from.
    """

    class Options(PluginOptions):
        """Options of replay."""

        refresh: int | None = Field(default=None, ge=1)
        """After how many rounds it takes a new vector, which it then sends again and again; default never."""

    options: Options

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`.

        Raises:
            LayoutError: What it remembers has another length.
        """
        if self._fresh(context):
            return own
        return TensorVector(_same_length(context.memory["vector"], own))

    def remembered(self, own: Vector, context: AttackContext) -> Mapping[str, Vector]:
        """`vector` float32 `[d]` and `since` float32 `[1]`."""
        since = float(context.round) if self._fresh(context) else context.memory["since"].item()
        return {"vector": self.vector(own, context), "since": constant(1, since)}

    def _fresh(self, context: AttackContext) -> bool:
        refresh = self.options.refresh
        if "vector" not in context.memory:
            return True
        return refresh is not None and context.round - context.memory["since"].item() >= refresh


class LazyCopy(Attack):
    """Does not contribute: sends what another has sent, or what the federation did last, as if it had trained.

    With known vectors it copies the first of them, without it copies the last round's change of the model (zero in the
    first round), and adds noise so as not to be found out. Source of free riding: the lazy clients in Li et al.,
    "Blockchain Assisted Decentralized Federated Learning (BLADE-FL)" (arXiv 2012.02044).

    A drill node trains nevertheless, and does not use the result.
    """

    class Options(PluginOptions):
        """Options of copying."""

        noise: float = Field(default=0.0, ge=0)
        """Standard deviation of what is added to each element."""

    options: Options
    needs_change = True

    def vector(self, own: Vector, context: AttackContext) -> Vector:
        """float32 `[d]`."""
        copied = self._copied(own, context)
        if self.options.noise == 0:
            return copied
        noise = normal(own.d, self.options.noise, derive_seed(context.seed, "attack", context.round, context.node))
        return FunctionVector(own.d, lambda columns: copied.read(columns) + noise.read(columns))

    def _copied(self, own: Vector, context: AttackContext) -> Vector:
        if context.known is not None and context.known.n:
            return context.known.rows[0].reader
        return context.change if context.change is not None else constant(own.d, 0.0)


def _same_length(kept: Tensor, own: Vector) -> Tensor:
    if len(kept) != own.d:
        raise LayoutError(f"the remembered vector has {len(kept)} elements, the run's vectors have {own.d}")
    return kept
