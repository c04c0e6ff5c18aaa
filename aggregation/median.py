"""The coordinate-wise median."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.order_statistics import mean_of_ranks


class Median(Aggregator):
    """In each coordinate the median of the n values; with an even n the mean of the two middle ones.

    Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (ICML
    2018, arXiv 1803.01498), Definition 1. Assumes n > 2f: then the result is between the least and the greatest honest
    value in each coordinate. f has no other part in it. The paper leaves an even n open.

    Every update counts the same, whatever its weight; all are accepted, since each coordinate has its own middle ones,
    and a verdict's weight is the row's own.
    """

    class Options(ByzantineOptions):
        """Options of the median."""

    options: Options

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The median, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        middle = frozenset({(updates.n - 1) // 2, updates.n // 2})
        verdicts = [Verdict(row.node, "accepted", share=row.weight) for row in updates.rows]
        return Aggregate(mean_of_ranks(updates, middle), tuple(verdicts))
