"""Norm clipping: long updates are cut to the median length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, Verdict
from covey.aggregation.gram import numbers_of
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed


class NormClip(Aggregator):
    """sum_i w_i x_i min(1, c / ||x_i||) / sum_i w_i, with c the median of the updates' l2 norms.

    Source of clipping, to a fixed norm: Sun et al., "Can You Really Backdoor Federated Learning?" (arXiv
    1911.07963), section 4; the median as the bound needs no tuning, and is out of a minority's reach (fewer than n /
    2). Of an even number of norms the median is the mean of the middle two. Weights are the effective shares of the
    round.

    A verdict's weight is w_i times its `factor`; its `norm` is as it came.
    """

    weighs = True

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the clipped rows, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: No rows, or weights that sum to zero.
        """
        self.require(updates)
        total = updates.weights.sum()
        if not total > 0:
            raise RunFailed("the updates' weights sum to zero: there is no mean of them")
        norms = updates.squared_norms().sqrt()
        median = torch.quantile(norms, 0.5)
        factors = torch.where(norms > median, median / norms, 1.0)
        weights = updates.weights / total * factors
        verdicts = [
            Verdict(node, "accepted", share=weight, numbers=measured)
            for node, weight, measured in zip(
                updates.nodes, weights.tolist(), numbers_of(norm=norms, factor=factors), strict=True
            )
        ]
        return Aggregate(updates.weighted_sum(weights), tuple(verdicts))
