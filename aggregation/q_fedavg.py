"""q-FedAvg: updates of nodes with a higher loss count more, so that no node is left behind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PluginOptions, Verdict, word_for
from covey.aggregation.gram import numbers_of
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed

_LEAST_LOSS = 1e-10
"""Added to every loss, as in the authors' code: with q < 1 a loss of zero would have an infinite derivative."""
_REASON = "it did not report a training loss that is a number, at least 0"


class QFedAvg(Aggregator):
    """sum_k p_k F_k^q L x_k / sum_k p_k (q F_k^(q-1) ||L x_k||^2 + L F_k^q), with F_k the loss of node k.

    Li, Sanjabi, Beirami, Smith, "Fair Resource Allocation in Federated Learning" (ICLR 2020, arXiv 1905.10497),
    Algorithm 2: the summands are Delta_k, with its sign turned, and h_k; x_k = w_k - w are the deltas, and L is 1 /
    `learning_rate`. With the server optimizer `sgd` at learning rate 1 this is the paper's step. The objective is
    sum_k p_k F_k^(q+1) / (q + 1): the greater q, the more the nodes with the highest loss count. q = 0 is the weighted
    mean (federated averaging). p_k are the effective shares of the round; the paper draws nodes with probability p_k,
    and then sums them equally, here all take part, each with its p_k.

    Deviation: the paper's F_k is the loss of the model that the round began with, on all of the node's examples. Nodes
    report the mean loss while they trained, which with one step is that of the batch, and else somewhat lower.

    Not robust: the losses are what nodes say, and one that claims a huge loss has the whole step. An update whose loss
    was not reported, or is negative, is rejected. Takes deltas (payload "delta" or "parameters"), not gradients.

    A verdict's weight is the update's coefficient in the direction (they sum to less than one with q > 0); its numbers
    are `loss` and `norm`.
    """

    class Options(PluginOptions):
        """Options of q-FedAvg."""

        q: float = Field(default=0.2, ge=0, le=100)
        """How much a high loss counts; 0: not at all."""
        learning_rate: float = Field(default=0.1, gt=0)
        """That of the nodes (`training.learning_rate`), whose inverse stands for the Lipschitz constant L at q = 0."""

    options: Options
    weighs = True
    robust = False
    needs_losses = True

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The reweighted step, float32 `[d]`.

        Raises:
            RunFailed: No rows, none with a loss, or weights that sum to zero.
        """
        self.require(updates)
        reported = [context.losses.get(node, math.nan) for node in updates.nodes]
        losses = torch.tensor([loss if 0 <= loss < math.inf else math.nan for loss in reported], dtype=torch.float64)
        usable = losses.isfinite()
        shares = torch.where(usable, updates.weights, 0.0)
        if not usable.any():
            raise RunFailed("q-fedavg needs the nodes' training losses, and no update of the round has one")
        if not shares.sum() > 0:
            raise RunFailed("the updates' weights sum to zero: there is no mean of them")
        squared_norms = updates.squared_norms()
        weights = self._weights(shares, losses.nan_to_num(), squared_norms)
        numbers = numbers_of(loss=losses, norm=squared_norms.sqrt())
        verdicts = [
            Verdict(node, word_for(known), reason="" if known else _REASON, share=weight, numbers=measured)
            for node, known, weight, measured in zip(
                updates.nodes, usable.tolist(), weights.tolist(), numbers, strict=True
            )
        ]
        return Aggregate(updates.weighted_sum(weights), tuple(verdicts))

    def _weights(self, shares: Tensor, losses: Tensor, squared_norms: Tensor) -> Tensor:
        """The rows' coefficients, float64 `[n]`: numerator and denominator over L and the greatest loss's power."""
        q, lipschitz = self.options.q, 1.0 / self.options.learning_rate
        losses = losses + _LEAST_LOSS
        powers = shares * (losses / losses.max()) ** q
        return powers / (powers * (1.0 + q * lipschitz * squared_norms / losses)).sum()
