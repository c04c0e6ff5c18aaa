"""Adaptive robust clipping: the longest updates are cut to the norm of the longest of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from covey.aggregation.contract import AggregationContext, ByzantineOptions, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.static_clip import clipping
from covey.errors import RunFailed


class ARC(PreAggregator):
    """x_i <- x_i min(1, C / ||x_i||), C the (k + 1)-th largest of the n norms, k = floor(2 f / n (n - f)).

    Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, "Adaptive Gradient Clipping for Robust Federated Learning" (ICLR
    2025, arXiv 2405.14432), Algorithm 2 (ARC). Assumes n > 2f. At least f + 1 updates are as long as C or longer, so C
    is at most the greatest honest norm, and no attacker is longer than an honest one; the rule behind it stays robust
    for f. n and f stay as they are, and so do the weights: row i of the result stands for node i. f = 0 clips nothing.

    The paper clips gradients; deltas are relative to the base model, and clipped the same way. A node's share in its
    verdict is what the rule gave it, times its factor min(1, C / ||x_i||).
    """

    class Options(ByzantineOptions):
        """Options of adaptive robust clipping."""

    options: Options

    def rows_needed(self, wanted: int) -> int:
        """As many as are wanted, at least 2f + 1."""
        return max(wanted, 2 * self.options.f + 1)

    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """Float64 `[n, n]`, diagonal: the factors.

        Raises:
            RunFailed: n <= 2f.
        """
        n, f, needed = updates.n, self.options.f, self.rows_needed(1)
        if n < needed:
            raise RunFailed(f"ARC needs at least {needed} updates, the round has {n}")
        norms = updates.squared_norms().sqrt()
        clipped = 2 * f * (n - f) // n
        return clipping(norms, float(torch.sort(norms, descending=True).values[clipped]))
