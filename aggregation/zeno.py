"""Zeno: the updates that lower the loss on trusted data most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.fltrust import root_of
from covey.aggregation.gram import least, mean_of, numbers_of
from covey.aggregation.matrix import UpdateMatrix

RHO_PARTS = 200
"""rho is gamma by so many, if nothing else is said: 0.0005 at gamma 0.1."""
_REASON = "its score (fall of the loss on the trusted data, less rho times its squared norm) is among the f lowest"
_NOT_FINITE = "the loss on the trusted data would not be finite"


class Zeno(Aggregator):
    """The mean of the n - f updates of the highest score L(x) - L(x + gamma u_i) - rho ||u_i||^2.

    Xie, Koyejo, Gupta, "Zeno: Distributed Stochastic Gradient Descent with Suspicion-based Fault-tolerance" (ICML 2019,
    arXiv 1805.10032), Definition 2 and Algorithm 1; the paper's b is f here. L is the loss on the coordinator's trusted
    data, gamma the server optimizer's learning rate; u points the way the model is to go, hence the plus. Assumes only
    f < n: a majority may be Byzantine.

    Deviations: L is of the whole trusted data, not of a sample drawn in every round. A row after which the loss is not
    finite is never used; if that leaves none, the direction is zero and every row is rejected. Equal scores: the
    earlier rows are kept. The updates' weights have no part in it. Costs an evaluation on the trusted data for each
    update. The authors' code multiplies rho by the mean of the squared elements, not by their sum as the definition
    has it (here too): with the same rho it marks long updates down d times less.

    A verdict's numbers are `score`, and `gain`, the fall of the loss; both are missing where the loss is not finite.
    """

    class Options(ByzantineOptions):
        """Options of Zeno."""

        rho: float | None = Field(default=None, ge=0)
        """How much long updates are marked down; default: gamma / 200, as in the authors' experiments."""

    options: Options
    needs_root = True

    def min_updates(self) -> int:
        """One more than f."""
        return self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the best rows, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or no trusted data.
        """
        self.require(updates)
        gains = self._gains(updates, context)
        rho = context.learning_rate / RHO_PARTS if self.options.rho is None else self.options.rho
        scores = gains - rho * updates.squared_norms()
        best = least(-scores, updates.n - self.options.f)
        chosen = [i for i in best if math.isfinite(scores[i])]
        result = mean_of(updates, chosen, numbers_of(score=scores, gain=gains), _REASON)
        return Aggregate(result.direction, tuple(_explained(v) for v in result.verdicts))

    def _gains(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """By how much the loss falls with each row alone, float64 `[n]`; minus infinity if it is not finite then."""
        root = root_of(context, "zeno")
        before = root.loss(None)
        steps = context.learning_rate * torch.eye(updates.n, dtype=torch.float64)
        gains = [before - root.loss(updates.weighted_sum(step)) for step in steps]
        return torch.tensor([gain if math.isfinite(gain) else -math.inf for gain in gains], dtype=torch.float64)


def _explained(verdict: Verdict) -> Verdict:
    if verdict.accepted or "gain" in verdict.numbers:
        return verdict
    return replace(verdict, reason=_NOT_FINITE)
