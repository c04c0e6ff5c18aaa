"""MoNNA's nearest-neighbour averaging: the updates nearest to one from trusted data, averaged with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, ByzantineOptions, Verdict, word_for
from covey.aggregation.fltrust import root_of
from covey.aggregation.gram import least, numbers_of
from covey.aggregation.matrix import GRAM_COLUMNS, UpdateMatrix
from covey.errors import LayoutError
from covey.vectors import spans


class MoNNA(Aggregator):
    """(g_0 + sum of the n - f updates nearest to g_0) / (n - f + 1), with g_0 the update from the trusted data.

    Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning with Linear Gradient Overhead"
    (ICML 2023, arXiv 2209.10931), nearest-neighbour averaging (NNA). The paper has no server: of n vectors, each node
    averages the n - f that are nearest to its own, which is one of them. A coordinator has no vector of its own, and no
    node is above suspicion; the trusted data give it one, as for `fltrust`. So it takes part as number n + 1, and
    averages those n + 1 - f of the n + 1 vectors that are nearest to its own. (Other libraries take the vector of one
    node that is trusted: then a run stands and falls with that node.)

    Assumes n > 2f, and trusted data that resemble the nodes': a g_0 far off chooses wrong ones. The paper's momentum is
    the nodes' (`[exchange] worker_momentum`). Equal distances: the earlier update is nearer. The updates' weights have
    no part in it.

    An accepted update's weight is 1 / (n - f + 1), so the weights sum to less than one by g_0's own share; a verdict's
    `distance` is the l2 distance to g_0.
    """

    class Options(ByzantineOptions):
        """Options of MoNNA."""

    options: Options
    needs_root = True

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The mean of the nearest rows and the root update, float32 `[d]`.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or no trusted data.
            LayoutError: The root update has another length than the rows.
        """
        self.require(updates)
        root = root_of(context, "monna").update()
        distances = squared_distances_to(updates, root)
        count = updates.n - self.options.f
        weights = torch.zeros(updates.n + 1, dtype=torch.float64)
        weights[[*least(distances, count), updates.n]] = 1.0 / (count + 1)
        reason = f"not among the {count} updates nearest to the one from the trusted data"
        verdicts = [
            Verdict(node, word_for(weight > 0), reason="" if weight > 0 else reason, share=weight, numbers=measured)
            for node, weight, measured in zip(
                updates.nodes, weights[:-1].tolist(), numbers_of(distance=distances.sqrt()), strict=True
            )
        ]
        return Aggregate(updates.extended([root]).weighted_sum(weights), tuple(verdicts))


def squared_distances_to(updates: UpdateMatrix, vector: Tensor) -> Tensor:
    """The squared l2 distance of every row to a vector, float64 `[n]`, from their differences.

    Differences are float32 and squared over `GRAM_COLUMNS` (both float64 where that overflows): near rows lose no
    digits, as they would if this were computed from scalar products.

    Args:
        updates: n rows.
        vector: float32 `[d]`.

    Raises:
        LayoutError: The vector has another length.
    """
    if vector.shape != (updates.d,):
        raise LayoutError(f"rows of {updates.d} elements cannot be compared with {tuple(vector.shape)}")
    total = _squared_distances(updates, vector, torch.float32)
    return total if total.isfinite().all() else _squared_distances(updates, vector, torch.float64)


def _squared_distances(updates: UpdateMatrix, vector: Tensor, dtype: torch.dtype) -> Tensor:
    total = torch.zeros(updates.n, dtype=torch.float64)
    for columns, slab in updates.blocks(updates.wide):
        for part in spans(slab.shape[1], GRAM_COLUMNS):
            difference = slab[:, part].to(dtype) - vector[columns][part].to(dtype)
            total += torch.linalg.vecdot(difference, difference).double()
    return total
