"""Minimum-diameter averaging: the mean of the n - f updates that are closest together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext
from covey.aggregation.gram import mean_of, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.subsets import SubsetOptions, SubsetRule, subsets

Distances = NDArray[np.float64]
_PAIRS = 1 << 20
"""Pairs of rows that are looked at together: 8 MiB of distances."""


class MinimumDiameter(SubsetRule):
    """The mean of the subset of n - f updates of which the two farthest apart are nearest together.

    El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine Learning" (PODC 2020, arXiv
    1905.03853): minimum-diameter averaging (MDA). Assumes n >= 2f + 1.

    The search is exact: all n! / (f! (n - f)!) subsets. A round with more than `max_subsets` is refused rather than
    approximated. Many subsets can share the least diameter (all that contain the one pair that decides), so of those
    the one with the least sum of squared distances is taken, and among equal ones the first in row order.

    The updates' weights have no part in it. A verdict's `distance` is the l2 distance to the farthest update of the
    subset.
    """

    class Options(SubsetOptions):
        """Options of minimum-diameter averaging."""

    options: Options
    rule_name = "minimum-diameter"

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the subset, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or more than `max_subsets` subsets.
        """
        self.require(updates)
        n, f = updates.n, self.options.f
        distances = squared_distances(updates.gram())
        chosen = least_diameter(distances.numpy(), n - f)
        farthest = distances[:, chosen].amax(1).sqrt()
        reason = f"not in the {n - f} updates of least diameter"
        return mean_of(updates, chosen, numbers_of(distance=farthest), reason)


def least_diameter(distances: Distances, size: int) -> list[int]:
    """The subset of `size` rows with the least greatest distance, then the least sum, then the first.

    Args:
        distances: Squared, float64 `[n, n]`.
        size: At least 1, at most n.
    """
    best: tuple[float, float] = (np.inf, np.inf)
    chosen: list[int] = list(range(size))
    for some in subsets(len(distances), size, _PAIRS // size**2):
        pairs = distances[some[:, :, None], some[:, None, :]]
        diameters = pairs.max(axis=(1, 2))
        least = diameters.min()
        if least > best[0]:
            continue
        equal = np.flatnonzero(diameters == least)
        sums = pairs[equal].sum(axis=(1, 2))
        narrowest = (float(least), float(sums.min()))
        if narrowest < best:
            best, chosen = narrowest, some[equal[sums.argmin()]].tolist()
    return chosen
