"""Krum and Multi-Krum: the update, or the updates, with the nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions
from covey.aggregation.gram import least, mean_of, numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix


def krum_scores(distances: Tensor, neighbours: int) -> Tensor:
    """The sum of each row's `neighbours` smallest squared distances to other rows, float64 `[n]`.

    Args:
        distances: Squared distances, float64 `[n, n]`, diagonal zero.
        neighbours: At least 1, at most n - 1.
    """
    # The first of the sorted is the row's own zero, or that of a row identical to it.
    return torch.sort(distances, dim=1).values[:, 1 : neighbours + 1].sum(1)


class Krum(Aggregator):
    """argmin_i of the sum of the n - f - 2 smallest ||x_i - x_j||^2, j != i: one update, as it is.

    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (NeurIPS 2017), section
    4. Assumes 2f + 2 < n. Distances are squared and neighbours are n - f - 2, as in the paper; other libraries take n -
    f - 1, or distances that are not squared, hence the option `neighbours`.

    Equal scores: the earlier row is chosen (with one neighbour, the two nearest rows always have equal scores). The
    updates' weights have no part in it. A verdict's `score` is the sum of squared distances.
    """

    class Options(ByzantineOptions):
        """Options of Krum."""

        neighbours: int | None = Field(default=None, ge=1)
        """How many neighbours a score sums over; default n - f - 2."""

    options: Options

    def min_updates(self) -> int:
        """2f + 3, and one more than `neighbours`."""
        return max(2 * self.options.f + 3, (self.options.neighbours or 0) + 1)

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The chosen row, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows.
        """
        self.require(updates)
        neighbours = self.options.neighbours or updates.n - self.options.f - 2
        scores = krum_scores(squared_distances(updates.gram()), neighbours)
        chosen = least(scores, self._count(updates.n))
        reason = f"its {neighbours} nearest updates are farther away than those of the {len(chosen)} chosen"
        return mean_of(updates, chosen, numbers_of(score=scores), reason)

    def _count(self, n: int) -> int:
        return 1


class MultiKrum(Krum):
    """The mean of the m updates with the least Krum scores.

    Blanchard et al. (see `Krum`), section 4, "m-Krum": the m best of one scoring, m <= n - f - 2. Assumes 2f + 2 < n.
    Equal scores: the earlier rows are chosen. The updates' weights have no part in it.
    """

    class Options(Krum.Options):
        """Options of Multi-Krum."""

        m: int | None = Field(default=None, ge=1)
        """How many updates are averaged, at most n - f - 2 (the default)."""

    options: Options

    def min_updates(self) -> int:
        """2f + 3, one more than `neighbours`, and m + f + 2."""
        return max(super().min_updates(), (self.options.m or 0) + self.options.f + 2)

    def _count(self, n: int) -> int:
        return self.options.m or n - self.options.f - 2
