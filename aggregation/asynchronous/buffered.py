"""FedBuff: updates are held until there are K of them, which then become one step by any rule for rounds."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from covey.aggregation.asynchronous.contract import Arrival, AsyncContext, AsyncStep, Decision, Verdict
from covey.aggregation.asynchronous.dampening import DampeningOptions, Kind
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
from covey.aggregation.weights import effective_shares


class BufferedOptions(DampeningOptions):
    """Options of `buffered`."""

    k: int = Field(default=10, ge=1)
    """How many updates, each of another node, make a step."""
    rule: RuleOptions = RuleOptions()
    """What makes them one."""
    dampening: Kind = "polynomial"
    """How an update is scaled for its staleness; `polynomial` with its 0.5 is FedBuff's 1 / sqrt(1 + tau)."""


class Buffered(HoldingPolicy):
    """K updates at a time: x <- x + lr rule(s(tau_1) d_1, ..., s(tau_K) d_K).

    Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation" (AISTATS 2022, arXiv 2106.06639).
    The form (1 + tau)^-e of the scaling is that of its authors' code (FLSim), which has no default for e and divides by
    the value at the average staleness; the default 1 / 2 is our own choice. With the rule `mean`, equal
    weights and the server optimizer `sgd` this is FedBuff; the shares follow `[weights]`, as in rounds, so with
    K = n and no staleness it is a round of `mean`, to the bit.

    Deviation: the inner rule may be any without memory and trusted data. An update is scaled before the rule sees
    it, since a median or a distance has no use for weights; a stale update so looks smaller than it was.

    Assumes what the rule assumes, of K rows. A node has at most one row: its newer update takes the place of an
    older one that is still held, and that one is rejected. So K different nodes must be alive.
    The part `buffers` becomes the median of the accepted updates (their mean under a rule that is not robust), as in
    rounds.
    """

    Options = BufferedOptions
    options: BufferedOptions

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        """Check the options, and make the inner rule.

        Raises:
            SpecError: An option is wrong, or K updates are too few for the rule.
            PluginError: There is no such rule here.
        """
        super().__init__(options)
        self._rule = load_rule(self.options.rule, self.options.k, f"{self.place}.rule")

    def min_nodes(self) -> int:
        """K."""
        return self.options.k

    def decide(self, arrival: Arrival, state: HeldState, context: AsyncContext) -> Decision[HeldState]:
        """Hold the update, or release all if it is the K-th.

        Raises:
            RunFailed: The rule refuses the updates, or a node is not in the roster.
        """
        held, replaced = take(arrival, state.held)
        tau = context.staleness(arrival)
        if len(held) < self.options.k:
            numbers = {"staleness": float(tau), "waiting": float(len(held))}
            verdict = Verdict(arrival.node, "held", numbers=numbers, number=arrival.number)
            return Decision((verdict, *replaced), HeldState(held=held, arrivals=state.arrivals + 1))
        rows = opened(arrival, held, context)
        verdicts, step = self._release(rows, context)
        return released(arrival, replaced, verdicts, step)

    def _release(self, arrivals: list[Arrival], context: AsyncContext) -> tuple[list[Verdict], AsyncStep]:
        taus = [context.staleness(arrival) for arrival in arrivals]
        factors = [self.options.factor(tau) for tau in taus]
        shares = effective_shares(
            [arrival.weight for arrival in arrivals], context.weights_by, context.max_share
        ).tolist()
        result = apply_rule(
            self._rule,
            [
                Row(arrival.node, share, arrival.reader if factor == 1.0 else Combined([(arrival.reader, factor)]))
                for arrival, share, factor in zip(arrivals, shares, factors, strict=True)
            ],
            context,
        )
        verdicts = [
            Verdict(
                arrival.node,
                verdict.verdict,
                verdict.reason,
                verdict.share * factor,
                {**verdict.numbers, "staleness": float(tau), "dampening": factor},
                arrival.number,
            )
            for arrival, verdict, tau, factor in zip(arrivals, result.verdicts, taus, factors, strict=True)
        ]
        used = {arrival.number: verdict.share for arrival, verdict in zip(arrivals, result.verdicts, strict=True)}
        return verdicts, AsyncStep(result.direction, used, buffers="median" if self._rule.robust else "mean")
