"""What an aggregator is: the rule by which a round's updates become one direction, with a verdict on each.

A rule is given deltas (or gradients, with the sign of a step) and gives a direction of the same kind; what
happens to the model is the server optimizer's business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from covey.aggregation.directions import BlockRule
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.verdicts import Verdict, word_for
from covey.errors import RunFailed
from covey.options import PluginOptions
from covey.plugins import Kind, Pluggable
from covey.vectors import TensorVector, Vector

__all__ = [
    "AGGREGATORS",
    "PRE_AGGREGATORS",
    "Aggregate",
    "AggregationContext",
    "Aggregator",
    "BlockRule",
    "ByzantineOptions",
    "PluginOptions",
    "PreAggregator",
    "RootData",
    "TensorVector",
    "Vector",
    "Verdict",
    "word_for",
]


@dataclass(frozen=True)
class Aggregate:
    """The result of a rule.

    Attributes:
        direction: float32 `[d]`, computed when its blocks are asked for.
        verdicts: One for each row, in row order.
        state: What the rule wants back in the next round, by name; lazy vectors, so that one of the
            model's size (the last result, for centred clipping) is written block by block. Empty for a rule
            without memory.
    """

    direction: Vector
    verdicts: tuple[Verdict, ...]
    state: Mapping[str, Vector] = field(default_factory=dict)


class RootData(Protocol):
    """A small trusted data set at the coordinator (`[aggregation] root_examples`), as a rule may use it."""

    def update(self) -> Tensor:
        """What an honest node with the root data would send in this round: float32 `[d]`, not to be modified."""

    def loss(self, step: Vector | None) -> float:
        """Mean loss over the root data where the model is moved by `step` (None: not moved).

        A step is of the rows' kind: where nodes send gradients, the model is moved against it.
        """


@dataclass(frozen=True)
class AggregationContext:
    """What a rule may know of the round beside the updates. New fields come with defaults.

    Attributes:
        round: The round, from 1.
        seed: The run's seed; derive streams from it with `covey.seeds.derive_seed(seed, purpose, round)`.
        root: Trusted data, for a rule that says `needs_root`.
        learning_rate: The server optimizer's: how far a step along the direction goes.
        roster: The run's node ids in roster order, only ever appended to: for a rule that keeps something of each.
        losses: The mean loss that a node reported of its training, by node: what nodes say, and not all may.
    """

    round: int
    seed: int
    root: RootData | None = None
    learning_rate: float = 1.0
    roster: tuple[str, ...] = ()
    losses: Mapping[str, float] = field(default_factory=dict)


class ByzantineOptions(PluginOptions):
    """Options of every rule that assumes a number of Byzantine nodes."""

    f: int = Field(default=0, ge=0)
    """How many of a round's updates may be Byzantine."""


class Aggregator(Pluggable):
    """A rule. Its docstring states shapes, what it assumes on n and f, paper and equation, and deviations.

    Class attributes:
        Options: The model of the rule's options (`[aggregation.options]`).
        state_names: Names of what it keeps from round to round (`Aggregate.state`), always all of them.
        needs_root: Whether it needs `AggregationContext.root`.
        needs_losses: Whether it needs `AggregationContext.losses`.
        votes: Whether it reads signs only, so that updates may be signs and its direction is +1 or -1.
        weighs: Whether the rows' weights have a part in the direction.
        robust: Whether it is there to withstand wrong updates: buffers are then combined by their median.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    needs_root: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = False
    votes: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    robust: ClassVar[bool] = True

    def min_updates(self) -> int:
        """The fewest updates with which the rule's guarantee holds (for its f); at least 1."""
        return 1

    def refusal(self, n: int) -> str:
        """Why the rule cannot be applied to as many as n updates, for people; empty if it can.

        A run of which each round would be refused for this is refused at submission.
        """
        return ""

    def require(self, updates: UpdateMatrix) -> None:
        """Refuse a round that breaks the rule's assumption on n; the first line of every `aggregate`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        if updates.n < self.min_updates():
            name = type(self).__name__
            raise RunFailed(f"{name} needs at least {self.min_updates()} updates, the round has {updates.n}")

    @abstractmethod
    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """Combine the updates of one round.

        Args:
            updates: n finite rows of d float32 in node-id order, never to be modified.
            state: What the last round's `Aggregate.state` was, float32; empty in the first round.
            context: The round.

        Raises:
            RunFailed: The rule cannot be applied to these updates (too few of them).
        """


class PreAggregator(Pluggable):
    """Something done to a round's updates before any rule sees them: it mixes rows into other rows.

    Its docstring states paper and equation, and what happens to f and n.

    Class attributes:
        Options: The model of its options (`options` of one entry of `[[aggregation.pre]]`).
    """

    @abstractmethod
    def rows_needed(self, wanted: int) -> int:
        """How many updates must come in for `wanted` rows to come out."""

    @abstractmethod
    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """How the rows that come out are made: float64 `[m, n]`, X' = W X.

        Args:
            updates: n finite rows of d float32 in node-id order, never to be modified.
            context: The round.

        Raises:
            RunFailed: It cannot be applied to these updates (too few of them).
        """


AGGREGATORS = Kind("aggregator", "covey.aggregators", Aggregator, "aggregation")
PRE_AGGREGATORS = Kind("pre-aggregator", "covey.pre_aggregators", PreAggregator, "aggregation.pre")
