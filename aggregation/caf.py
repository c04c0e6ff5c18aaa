"""CAF: the covariance-bound agnostic filter, which takes weight from updates that stretch the covariance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict, word_for
from covey.aggregation.covariance import Matrix, principal
from covey.aggregation.gram import distances_to, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix

_REASON = "filtered out: it is the farthest from the mean in the direction in which the updates differ most"


class CAF(Aggregator):
    """The weighted mean mu_c of least covariance (largest eigenvalue) on the way from all updates to fewer.

    Allouah, Guerraoui, Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants" (ICML 2025, arXiv
    2505.01874): the covariance-bound agnostic filter. From c_i = 1: with mu_c and Sigma_c the mean and covariance under
    c, lambda and v the largest eigenvalue of Sigma_c and its eigenvector, and tau_i = ((x_i - mu_c)^T v)^2, c_i <- c_i
    (1 - tau_i / max_j tau_j), as long as sum_i c_i > n - 2f. The direction is the mu_c with the least lambda that was
    met. No bound on the honest updates' covariance has to be known. Assumes n > 2f. f = 0 is the unweighted mean.

    Steps are as the authors' library (ByzFL) has them. Deviations from it: eigenvectors are exact, where it takes one
    step of the power method from a random vector; and max_j is over the updates that still have weight, so each step
    takes the last weight from at least one, and there are at most n of them (one that is out already would else
    stretch the scale, and the filter would hardly go on).

    The updates' weights have no part in it. A verdict's weight is c_i / sum_j c_j; its numbers are `kept` (c_i, 1: all
    of it), and `distance`, the l2 distance to the direction.
    """

    class Options(ByzantineOptions):
        """Options of the filter."""

    options: Options

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The filtered mean, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        gram = updates.gram()
        kept = torch.from_numpy(filtered(squared_distances(gram).numpy(), self.options.f))
        weights = kept / kept.sum()
        numbers = numbers_of(kept=kept, distance=distances_to(gram, weights))
        verdicts = [
            Verdict(node, word_for(weight > 0), reason="" if weight > 0 else _REASON, share=weight, numbers=measured)
            for node, weight, measured in zip(updates.nodes, weights.tolist(), numbers, strict=True)
        ]
        return Aggregate(updates.weighted_sum(weights), tuple(verdicts))


def filtered(distances: Matrix, f: int) -> Matrix:
    """The weights c with the least largest eigenvalue of the covariance, float64 `[n]`, each in [0, 1].

    Args:
        distances: Squared, float64 `[n, n]`.
        f: Filtering ends when less than n - 2f of the weight is left.
    """
    n = len(distances)
    kept = best = np.ones(n)
    least = np.inf
    while kept.sum() > n - 2 * f or least == np.inf:
        largest, along = principal(distances, kept / kept.sum())
        if largest < least:
            least, best = largest, kept
        along = np.where(kept > 0, along, 0.0)
        if not along.max() > 0:
            break
        kept = kept * (1.0 - along / along.max())
    return best
