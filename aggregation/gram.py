"""What distance rules have in common: everything they ask of the updates follows from the Gram matrix.

With G = X X^T (float64 `[n, n]`, of deltas against the base model), the squared distance of rows i and j is
`G_ii + G_jj - 2 G_ij`, and that of row i to any combination z = sum_j w_j x_j is `G_ii - 2 (G w)_i + w^T G w`. So such
a rule reads the rows once for G, computes with small matrices until it knows the weights of its result, and reads them
once more for the weighted sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, Verdict, word_for
from covey.aggregation.matrix import UpdateMatrix


def squared_distances(gram: Tensor) -> Tensor:
    """Squared l2 distances of all pairs of rows, float64 `[n, n]`: symmetric, not negative, diagonal zero.

    Args:
        gram: float64 `[n, n]`, symmetric (`UpdateMatrix.gram`).
    """
    squared = gram.diagonal()
    distances = (squared[:, None] + squared[None, :] - 2 * gram).clamp_(min=0)
    return distances.fill_diagonal_(0)


def distances_to(gram: Tensor, weights: Tensor) -> Tensor:
    """The l2 distance of every row to the combination sum_j weights[j] x row j, float64 `[n]`.

    Args:
        gram: float64 `[n, n]`.
        weights: float64 `[n]`; they need not sum to one.
    """
    products = gram @ weights
    return (gram.diagonal() - 2 * products + weights @ products).clamp(min=0).sqrt()


def least(scores: Tensor, count: int) -> list[int]:
    """The indices of the `count` least scores in ascending order of score; equal scores in row order."""
    return torch.sort(scores, stable=True).indices[:count].tolist()


def mean_of(
    updates: UpdateMatrix, chosen: Sequence[int], numbers: Sequence[Mapping[str, float]], reason: str
) -> Aggregate:
    """The unweighted mean of some rows: a selection rule's result.

    Args:
        updates: n rows.
        chosen: Indices of those that are accepted; if there are none, the direction is zero.
        numbers: What was measured of each row.
        reason: Why the others were rejected.
    """
    weights = torch.zeros(updates.n, dtype=torch.float64)
    weights[list(chosen)] = 1.0 / max(len(chosen), 1)
    verdicts = [
        Verdict(node, word_for(weight > 0), reason="" if weight > 0 else reason, share=weight, numbers=measured)
        for node, weight, measured in zip(updates.nodes, weights.tolist(), numbers, strict=True)
    ]
    return Aggregate(updates.weighted_sum(weights), tuple(verdicts))


def numbers_of(**columns: Tensor) -> list[dict[str, float]]:
    """One mapping for each row from named columns of `[n]` numbers; a number that is not finite is left out."""
    values = [column.tolist() for column in columns.values()]
    rows = (zip(columns, row, strict=True) for row in zip(*values, strict=True))
    return [{name: value for name, value in row if math.isfinite(value)} for row in rows]
