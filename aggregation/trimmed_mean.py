"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.order_statistics import mean_of_ranks


class TrimmedMean(Aggregator):
    """In each coordinate the mean of the n - 2f values that are left without the f least and the f greatest.

    Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (ICML
    2018, arXiv 1803.01498), Definition 2, with beta = f / n. Assumes n > 2f. f = 0 is the unweighted mean.

    Every update counts the same, whatever its weight; all are accepted, since each coordinate leaves out others, and a
    verdict's weight is the row's own.
    """

    class Options(ByzantineOptions):
        """Options of the trimmed mean."""

    options: Options

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The trimmed mean, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        kept = frozenset(range(self.options.f, updates.n - self.options.f))
        verdicts = [Verdict(row.node, "accepted", share=row.weight) for row in updates.rows]
        return Aggregate(mean_of_ranks(updates, kept), tuple(verdicts))
