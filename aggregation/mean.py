"""The weighted mean: federated averaging's rule."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed


class Mean(Aggregator):
    """sum_i w_i x_i / sum_i w_i, with the matrix's weights (the effective shares of the round).

    On deltas, with the server optimizer `sgd` at learning rate 1, this is federated averaging: McMahan et
    al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017, arXiv
    1602.05629), Algorithm 1. Deviation: shares may be bounded by the run's `max_share`.

    Assumes n >= 1 and no Byzantine node: a single one moves the mean anywhere.
    """

    weighs = True
    robust = False

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the rows, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: No rows, or weights that sum to zero.
        """
        self.require(updates)
        total = updates.weights.sum()
        if not total > 0:
            raise RunFailed("the updates' weights sum to zero: there is no mean of them")
        shares = updates.weights / total
        verdicts = [
            Verdict(node, "accepted", share=share) for node, share in zip(updates.nodes, shares.tolist(), strict=True)
        ]
        return Aggregate(updates.weighted_sum(shares), tuple(verdicts))
