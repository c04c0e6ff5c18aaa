"""BASGD: nodes share buffers, and a step is a robust rule over the means of the buffers."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from covey.aggregation.asynchronous.contract import Arrival, AsyncContext, AsyncStep, Decision, Verdict
from covey.aggregation.asynchronous.holding import (
    Combined,
    HeldState,
    HoldingPolicy,
    RuleOptions,
    apply_rule,
    load_rule,
    opened,
    released,
    take,
)
from covey.aggregation.matrix import Row
from covey.options import PluginOptions


class BASGDOptions(PluginOptions):
    """Options of `basgd`."""

    buffers: int = Field(default=10, ge=1)
    """B. A robust rule needs more than twice as many as there are Byzantine nodes."""
    rule: RuleOptions = RuleOptions(name="median")
    """What makes the B means one: the paper has `median` and `trimmed-mean`."""
    patience: int | None = Field(default=None, ge=1)
    """After so many updates with a buffer still empty the nodes are dealt out anew; default: twice the nodes."""


class BASGD(HoldingPolicy):
    """Buffered asynchronous SGD: x <- x - lr rule(h_1, ..., h_B), h_b the mean of the updates in buffer b.

    Yang & Li, "BASGD: Buffered Asynchronous SGD for Byzantine Learning" (ICML 2021; JMLR 24, 2023; arXiv
    2003.00937; the algorithm is from memory and from its users' descriptions). Node s of the roster has buffer
    s mod B. When no buffer is empty, the rule is applied to their means, and all are emptied. Staleness does not
    weigh, and neither does the declared weight.

    Assumes that with q Byzantine nodes the rule withstands q of B rows (median: q < B / 2): each node is in one
    buffer, so q nodes spoil at most q means. The paper's experiments have B = 10 for q = 3 of n = 30, 15 for 6.

    Deviations: a node has at most one update in its buffer, the newest; the one before is then rejected, so
    that the state stays O(n). If a buffer stays empty for `patience` updates (its nodes are gone), the nodes that
    are held are dealt out anew, the i-th of them in roster order into buffer i mod B: as in the paper's
    reassignment, each is still in one buffer only. So B different nodes must be alive.
    The part `buffers` (running statistics) becomes the median over the accepted updates.
    """

    Options = BASGDOptions
    options: BASGDOptions

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        """Check the options, and make the inner rule.

        Raises:
            SpecError: An option is wrong, or B rows are too few for the rule.
            PluginError: There is no such rule here.
        """
        super().__init__(options)
        self._rule = load_rule(self.options.rule, self.options.buffers, f"{self.place}.rule")

    def min_nodes(self) -> int:
        """B: with fewer nodes a buffer would always be empty."""
        return self.options.buffers

    def decide(self, arrival: Arrival, state: HeldState, context: AsyncContext) -> Decision[HeldState]:
        """Put the update into its node's buffer, and release all if none is empty now.

        Raises:
            RunFailed: The rule refuses the means, or a node is not in the roster.
        """
        held, replaced = take(arrival, state.held)
        arrivals = state.arrivals + 1
        dealt = self._dealt(held, arrivals, context)
        filled = len(set(dealt.values()))
        if filled < self.options.buffers:
            numbers = {
                "staleness": float(context.staleness(arrival)),
                "buffer": float(dealt[arrival.node]),
                "filled": float(filled),
            }
            verdict = Verdict(arrival.node, "held", numbers=numbers, number=arrival.number)
            return Decision((verdict, *replaced), HeldState(held=held, arrivals=arrivals))
        verdicts, step = self._release(opened(arrival, held, context), dealt, context)
        return released(arrival, replaced, verdicts, step)

    def _dealt(self, held: Mapping[str, int], arrivals: int, context: AsyncContext) -> dict[str, int]:
        """Node to its buffer."""
        buffers = self.options.buffers
        own = {node: context.index(node) % buffers for node in held}
        patience = self.options.patience or 2 * len(context.roster)
        if arrivals >= patience and len(set(own.values())) < buffers:
            return {node: i % buffers for i, node in enumerate(sorted(held, key=context.index))}
        return own

    def _release(
        self, arrivals: list[Arrival], dealt: Mapping[str, int], context: AsyncContext
    ) -> tuple[list[Verdict], AsyncStep]:
        buffers = [[arrival for arrival in arrivals if dealt[arrival.node] == b] for b in range(self.options.buffers)]
        rows = [
            Row(f"buffer-{b}", 1.0 / len(buffers), Combined([(arrival.reader, 1.0 / len(ones)) for arrival in ones]))
            for b, ones in enumerate(buffers)
        ]
        result = apply_rule(self._rule, rows, context)
        verdicts: list[Verdict] = []
        for b, (ones, mean) in enumerate(zip(buffers, result.verdicts, strict=True)):
            verdicts += [_verdict(arrival, mean, b, len(ones), context) for arrival in ones]
        shares = {v.number: v.share for v in verdicts}
        return verdicts, AsyncStep(result.direction, shares, buffers="median")


def _verdict(arrival: Arrival, mean: Verdict, buffer: int, size: int, context: AsyncContext) -> Verdict:
    """An update's verdict is that of its buffer's mean, its share a part of the mean's."""
    numbers = {"staleness": float(context.staleness(arrival)), "buffer": float(buffer), "in_buffer": float(size)}
    return Verdict(
        arrival.node, mean.verdict, mean.reason, mean.share / size, {**mean.numbers, **numbers}, arrival.number
    )
