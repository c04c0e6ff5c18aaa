"""FLTrust: updates count by how far they point the way of an update from trusted data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, RootData, Verdict, word_for
from covey.aggregation.gram import numbers_of
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed

_LEAST_NORM = 1e-15
"""A norm below this counts as zero: squares of its elements are lost in float32, and so is the row's direction."""


def root_of(context: AggregationContext, rule: str) -> RootData:
    """The round's trusted data.

    Raises:
        RunFailed: There is none.
    """
    if context.root is None:
        raise RunFailed(f"{rule} needs trusted data at the coordinator, and this round has none")
    return context.root


class FLTrust(Aggregator):
    """sum_i TS_i (||g_0|| / ||x_i||) x_i / sum_i TS_i, with TS_i = max(0, cos(x_i, g_0)) and g_0 the root update.

    Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping" (NDSS 2021, arXiv
    2012.13995), Algorithm 2. g_0 is what an honest node with the coordinator's trusted data would send. Assumes that
    the trusted data resemble the nodes', and nothing on n or f.

    The paper leaves open what happens if no update is trusted: here the direction is zero and every row is rejected. A
    row of norm zero points nowhere and is rejected; if g_0 is zero, all are. The updates' weights have no part in it.

    A verdict's weight is TS_i / sum_j TS_j; its `cosine` is that to g_0, its `factor` is ||g_0|| / ||x_i||.
    """

    needs_root = True

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The trusted rows' mean at the root update's length, float32 `[d]`.

        Raises:
            RunFailed: No rows, or no trusted data.
            LayoutError: The root update has another length than the rows.
        """
        self.require(updates)
        root = root_of(context, "fltrust").update()
        products, norms = updates.products(root), updates.squared_norms().sqrt()
        length = UpdateMatrix.of(root[None]).squared_norms().sqrt()
        known = (norms > _LEAST_NORM) & (length > _LEAST_NORM)
        cosines = torch.where(known, products / (norms * length), 0.0).clamp(-1.0, 1.0)
        factors = torch.where(known, length / norms, 0.0)
        trust = cosines.clamp(min=0.0)
        shares = trust / trust.sum() if trust.sum() > 0 else trust
        numbers = numbers_of(cosine=cosines, factor=factors)
        verdicts = [
            Verdict(node, word_for(share > 0), reason=_reason(share, figures), share=share, numbers=figures)
            for node, share, figures in zip(updates.nodes, shares.tolist(), numbers, strict=True)
        ]
        return Aggregate(updates.weighted_sum(shares * factors), tuple(verdicts))


def _reason(share: float, numbers: Mapping[str, float]) -> str:
    if share > 0:
        return ""
    if numbers["factor"] == 0:
        return "it, or the update from the trusted data, is zero, and so has no direction"
    return "it does not point the way of the update from the trusted data"
