"""Mean around the median, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from covey.aggregation.bulyan import near_median
from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.order_statistics import NarrowBlocks, network


class MeaMed(Aggregator):
    """In each coordinate the mean of the n - f values that are nearest to the median of all n.

    Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD" (arXiv 1802.10116), "mean around median"; the paper's q is
    f here. Assumes n > 2f. f = 0 is the unweighted mean. Unlike the trimmed mean it leaves out f values on whichever
    side they are far away, and only f instead of 2f.

    What the paper leaves open: with an even n the median is the mean of the two middle values; of two values that are
    equally near the lesser one is taken.

    Every update counts the same, whatever its weight; all are accepted, since each coordinate leaves out others, and a
    verdict's weight is the row's own.
    """

    class Options(ByzantineOptions):
        """Options of the mean around the median."""

    options: Options

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean around the median, float32 `[d]`, computed block by block; every row is accepted.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        n = updates.n
        every, kept = list(range(n)), n - self.options.f
        sort = network(n, frozenset(every), ordered=True)
        direction = NarrowBlocks(updates, lambda slab: near_median(slab, every, sort, kept))
        verdicts = [Verdict(row.node, "accepted", share=row.weight) for row in updates.rows]
        return Aggregate(direction, tuple(verdicts))
