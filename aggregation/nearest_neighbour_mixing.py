"""Nearest-neighbour mixing: every update becomes the mean of those nearest to it."""

from __future__ import annotations

import torch
from torch import Tensor

from covey.aggregation.contract import AggregationContext, ByzantineOptions, PreAggregator
from covey.aggregation.gram import squared_distances
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed


class NearestNeighbourMixing(PreAggregator):
    """x_i <- the mean of the n - f updates nearest to x_i, itself among them.

    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
    Heterogeneity" (AISTATS 2023, arXiv 2302.01772), Algorithm 2 (NNM). Assumes 2f < n. n and f stay as they are: row i
    of the result still stands for node i. Equal distances: the earlier row is nearer.
    """

    class Options(ByzantineOptions):
        """Options of nearest-neighbour mixing."""

    options: Options

    def rows_needed(self, wanted: int) -> int:
        """As many as are wanted, at least 2f + 1."""
        return max(wanted, 2 * self.options.f + 1)

    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """Float64 `[n, n]`: 1 / (n - f) at a row's neighbours.

        Raises:
            RunFailed: n <= 2f.
        """
        n, needed = updates.n, self.rows_needed(1)
        if n < needed:
            raise RunFailed(f"NearestNeighbourMixing needs at least {needed} updates, the round has {n}")
        # A row is its own nearest even where an identical one comes before it.
        distances = squared_distances(updates.gram()).fill_diagonal_(-1)
        near = torch.sort(distances, dim=1, stable=True).indices[:, : n - self.options.f]
        return torch.zeros(n, n, dtype=torch.float64).scatter_(1, near, 1.0 / (n - self.options.f))
