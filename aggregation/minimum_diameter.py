"""Minimum-diameter averaging: the mean of the n - f updates that are closest together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions
from covey.aggregation.gram import mean_of, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed

Distances = NDArray[np.float64]
_PAIRS = 1 << 20
"""Pairs of rows that are looked at together: 8 MiB of distances."""


class MinimumDiameter(Aggregator):
    """The mean of the subset of n - f updates of which the two farthest apart are nearest together.

    El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine Learning" (PODC 2020, arXiv
    1905.03853): minimum-diameter averaging (MDA). Assumes n >= 2f + 1.

    The search is exact: all n! / (f! (n - f)!) subsets. A round with more than `max_subsets` is refused rather than
    approximated. Many subsets can share the least diameter (all that contain the one pair that decides), so of those
    the one with the least sum of squared distances is taken, and among equal ones the first in row order.

    The updates' weights have no part in it. A verdict's `distance` is the l2 distance to the farthest update of the
    subset.
    """

    class Options(ByzantineOptions):
        """Options of minimum-diameter averaging."""

        max_subsets: int = Field(default=200_000, ge=1)
        """A round with more subsets to try is refused."""

    options: Options

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the subset, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or more than `max_subsets` subsets.
        """
        self.require(updates)
        n, f = updates.n, self.options.f
        if comb(n, f) > self.options.max_subsets:
            raise RunFailed(
                f"minimum-diameter: {n} updates with f = {f} have {comb(n, f)} subsets, more than max_subsets = "
                f"{self.options.max_subsets}; raise that, or choose a rule that does not enumerate"
            )
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
    for subsets in _subsets(len(distances), size):
        pairs = distances[subsets[:, :, None], subsets[:, None, :]]
        diameters = pairs.max(axis=(1, 2))
        least = diameters.min()
        if least > best[0]:
            continue
        equal = np.flatnonzero(diameters == least)
        sums = pairs[equal].sum(axis=(1, 2))
        found = (float(least), float(sums.min()))
        if found < best:
            best, chosen = found, subsets[equal[sums.argmin()]].tolist()
    return chosen


def _subsets(n: int, size: int) -> Iterator[NDArray[np.intp]]:
    """All subsets in lexicographic order, some at a time: `[s, size]`."""
    every = combinations(range(n), size)
    while some := list(islice(every, max(_PAIRS // size**2, 1))):
        yield np.array(some, dtype=np.intp)
