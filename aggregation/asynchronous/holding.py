"""What the policies that hold updates share: who is held, the rule that is applied to them, rows made of several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from typing_extensions import override

from covey.aggregation.asynchronous.contract import (
    Arrival,
    AsyncContext,
    AsyncPolicy,
    AsyncStep,
    Decision,
    Pinned,
    PolicyState,
    Verdict,
)
from covey.aggregation.contract import AGGREGATORS, Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.errors import SpecError
from covey.options import PluginOptions
from covey.vectors import ComputedVector, Vector


class RuleOptions(PluginOptions):
    """A rule for rounds, applied to the updates that are released together."""

    name: str = "mean"
    """An aggregator without memory and without trusted data."""
    options: dict[str, JsonValue] = Field(default={})
    """Its options."""


class HeldState(PolicyState):
    """Which updates are held: at most one a node, so at most n."""

    held: dict[str, int] = Field(default={})
    """Node to the assignment number of its update."""
    arrivals: int = 0
    """Updates that came since the last release."""

    def pinned(self) -> Pinned:
        """The held updates."""
        return Pinned(tuple(sorted(self.held.values())))

    def without(self, numbers: Collection[int]) -> HeldState:
        """The same, but these updates are not held any more."""
        left = {node: number for node, number in self.held.items() if number not in numbers}
        return HeldState(held=left, arrivals=self.arrivals)


class HoldingPolicy(AsyncPolicy[HeldState]):
    """A policy that holds updates, and releases all of them at once by a rule for rounds."""

    State = HeldState

    def pinned(self, state: HeldState) -> Pinned:
        """The held updates."""
        return state.pinned()

    @override
    def dropped(self, state: HeldState, numbers: Collection[int]) -> HeldState:
        return state.without(numbers)


def released(
    arrival: Arrival, replaced: tuple[Verdict, ...], verdicts: Sequence[Verdict], step: AsyncStep
) -> Decision[HeldState]:
    """The decision that makes a step: nothing is held any more.

    Args:
        arrival: Its verdict comes first.
        replaced: As of `take`.
        verdicts: On all that was held, and the arrival.
        step: What they make.
    """
    first = [verdict for verdict in verdicts if verdict.number == arrival.number]
    others = [verdict for verdict in verdicts if verdict.number != arrival.number]
    return Decision((*first, *replaced, *others), HeldState(), step)


def load_rule(section: RuleOptions, rows: int, at: str) -> Aggregator:
    """The inner rule.

    Args:
        section: Its name and options.
        rows: How many rows it will be given.
        at: Where the section stands in the user's file.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong, or it cannot be used here.
    """
    rule = AGGREGATORS.make(section.name, section.options, at)
    if rule.state_names or rule.needs_root:
        what = "keeps a state between rounds" if rule.state_names else "needs trusted data"
        text = f"{section.name!r} {what}, which it cannot have here; choose a rule without, such as median"
        raise SpecError(f"{at}.name: {text}")
    if rule.min_updates() > rows:
        text = f"{section.name!r} needs at least {rule.min_updates()} updates, and gets {rows} here"
        raise SpecError(f"{at}: {text}")
    return rule


def apply_rule(rule: Aggregator, rows: Sequence[Row], context: AsyncContext) -> Aggregate:
    """What the inner rule makes of some rows.

    Raises:
        RunFailed: It refuses them.
    """
    return rule.aggregate(UpdateMatrix(rows), {}, AggregationContext(context.version + 1, context.seed))


def take(arrival: Arrival, held: Mapping[str, int]) -> tuple[dict[str, int], tuple[Verdict, ...]]:
    """Hold an update in place of the node's older one, if there is one, which is then rejected."""
    old = held.get(arrival.node)
    now = {**held, arrival.node: arrival.number}
    if old is None:
        return now, ()
    reason = f"replaced by update {arrival.number} of the same node before it was used"
    return now, (Verdict(arrival.node, "rejected", reason, number=old),)


def opened(arrival: Arrival, held: Mapping[str, int], context: AsyncContext) -> list[Arrival]:
    """The held updates and the arrival among them, in roster order."""
    nodes = sorted(held, key=context.index)
    return [arrival if node == arrival.node else context.records.held(held[node]) for node in nodes]


class Combined(ComputedVector):
    """sum_i weights[i] x readers[i] as one row, decoded on demand.

    Args:
        terms: (reader, weight), at least one; all of one length.
    """

    def __init__(self, terms: Sequence[tuple[Vector, float]]) -> None:
        super().__init__(terms[0][0].d)
        self._terms = tuple(terms)

    def decode(self, columns: slice, out: Tensor) -> None:
        """The sum on `columns`, float32."""
        (first, weight), *others = self._terms
        torch.mul(first.read(columns), weight, out=out)
        for reader, weight in others:
            out.add_(reader.read(columns), alpha=weight)
