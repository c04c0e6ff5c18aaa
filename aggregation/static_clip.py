"""Static clipping: no update is longer than a given norm when the rule sees it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import AggregationContext, PluginOptions, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed


class StaticClip(PreAggregator):
    """x_i <- x_i min(1, c / ||x_i||).

    Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?" (arXiv 1911.07963), section 4, norm
    clipping; `Clipping` in ByzFL. n and f stay as they are, and so do the weights: row i of the result stands for node
    i. c has to be chosen for the run (updates get shorter as it goes on); `arc` and the rule `norm-clip` need none.

    A node's share in its verdict is what the rule gave it, times its factor min(1, c / ||x_i||).
    """

    class Options(PluginOptions):
        """Options of static clipping."""

        c: float = Field(gt=0)
        """The norm (l2) to which longer updates are cut."""

    options: Options

    def rows_needed(self, wanted: int) -> int:
        """As many as are wanted, at least 1."""
        return max(wanted, 1)

    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """Float64 `[n, n]`, diagonal: the factors.

        Raises:
            RunFailed: No rows.
        """
        if not updates.n:
            raise RunFailed("StaticClip needs at least 1 update, the round has 0")
        return clipping(updates.squared_norms().sqrt(), self.options.c)


def clipping(norms: Tensor, bound: float) -> Tensor:
    """diag(min(1, bound / norms)), float64 `[n, n]`; a row of norm zero stays as it is."""
    return torch.diag(torch.where(norms > bound, bound / norms, 1.0))
