"""SMEA: the mean of the n - f updates whose covariance has the smallest maximum eigenvalue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext
from covey.aggregation.covariance import Matrix, centred_products
from covey.aggregation.gram import distances_to, mean_of, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.subsets import SubsetOptions, SubsetRule, subsets

_PAIRS = 1 << 17
"""Pairs of rows that are looked at together: 1 MiB of distances, and a few times as much while they are worked on."""


class SMEA(SubsetRule):
    """The mean of the subset S of n - f updates with the least largest eigenvalue of its covariance.

    Allouah, Guerraoui, Gupta, Pinot, Stephan, "On the Privacy-Robustness-Utility Trilemma in Distributed Learning"
    (ICML 2023, arXiv 2302.04787): smallest maximum eigenvalue averaging, S* = argmin over |S| = n - f of
    lambda_max(1/|S| sum_{i in S} (x_i - mu_S)(x_i - mu_S)^T). Assumes n > 2f. The result is then at most
    2 sqrt(lambda f / (n - 2f)) away from the honest mean, lambda being the largest eigenvalue of the honest
    covariance: how far the honest updates are apart in one direction, not in all together.

    The search is exact, over all n! / (f! (n - f)!) subsets and with exact eigenvalues (ByzFL takes one step of the
    power method from a random vector). A round with more than `max_subsets` is refused rather than approximated. Equal
    eigenvalues: the first subset in row order.

    The updates' weights have no part in it. A verdict's `distance` is the l2 distance to the direction.
    """

    class Options(SubsetOptions):
        """Options of smallest maximum eigenvalue averaging."""

    options: Options
    rule_name = "smea"

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the subset, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or more than `max_subsets` subsets.
        """
        self.require(updates)
        size, gram = updates.n - self.options.f, updates.gram()
        chosen = least_eigenvalue(squared_distances(gram).numpy(), size)
        shares = gram.new_zeros(updates.n)
        shares[chosen] = 1.0 / size
        reason = f"not in the {size} updates whose covariance has the least largest eigenvalue"
        return mean_of(updates, chosen, numbers_of(distance=distances_to(gram, shares)), reason)


def least_eigenvalue(distances: Matrix, size: int) -> list[int]:
    """The subset of `size` rows whose covariance has the least largest eigenvalue, ascending; of equal ones the first.

    Args:
        distances: Squared, float64 `[n, n]`.
        size: At least 1, at most n.
    """
    least, chosen = np.inf, list(range(size))
    shares = np.full(size, 1.0 / size)
    for some in subsets(len(distances), size, _PAIRS // size**2):
        products = centred_products(distances[some[:, :, None], some[:, None, :]], shares)
        largest = np.linalg.eigvalsh(products)[:, -1]
        if largest.min() < least:
            least, chosen = float(largest.min()), some[largest.argmin()].tolist()
    return chosen
