"""The geometric median of the updates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PluginOptions, Verdict
from covey.aggregation.gram import numbers_of, squared_distances
from covey.aggregation.matrix import UpdateMatrix

Vector = NDArray[np.float64]


class GeometricMedian(Aggregator):
    """argmin_z of sum_i ||x_i - z||, by smoothed Weiszfeld steps until they have converged.

    Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning" (IEEE Transactions on Signal Processing
    2022, arXiv 1912.13445), Algorithm 2 (RFA): z <- sum_i w_i x_i with w_i proportional to 1 / max(nu, ||x_i - z||).
    Withstands fewer than n / 2 arbitrary rows.

    Deviations: every update counts the same, whatever its weight. It is iterated until it has converged, not a fixed 3
    or 8 times. `nu` is not absolute but a part of a typical distance (the least, over rows, of the median distance to
    the others, which a minority cannot drive up), so that it fits updates of every size. It does not start from the
    mean: an attacker who knows the others can put his row there, and from a row the steps are too small to get away.
    It starts with the step of Vardi and Zhang ("The multivariate L1-median and associated data depth", PNAS 2000) from
    the row with the least sum of distances: either that row is the median, or all that follows is better than any row.

    A verdict's weight is w_i, its `distance` that to the result.
    """

    class Options(PluginOptions):
        """Options of the geometric median."""

        nu: float = Field(default=1e-6, gt=0, le=1)
        """Smoothing: smaller distances than this part of a typical distance count as that."""
        tolerance: float = Field(default=1e-6, gt=0, lt=1)
        """Converged when a step is at most this part of the mean distance."""
        max_iterations: int = Field(default=300, ge=1)
        """The result of so many steps is taken even if it has not converged."""

    options: Options

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The geometric median, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: No rows.
        """
        self.require(updates)
        options, gram = self.options, updates.gram()
        nu = options.nu * typical_distance(gram)
        weights, distances = weiszfeld(gram.numpy(), nu, options.tolerance, options.max_iterations)
        start = torch.from_numpy(weights)
        numbers = numbers_of(distance=torch.from_numpy(distances))
        verdicts = [
            Verdict(node, "accepted", share=weight, numbers=measured)
            for node, weight, measured in zip(updates.nodes, weights.tolist(), numbers, strict=True)
        ]
        return Aggregate(updates.weighted_sum(start), tuple(verdicts))


def typical_distance(gram: Tensor) -> float:
    """The least, over rows, of the median distance to the other rows; if that is zero the mean one, and at last 1."""
    if len(gram) < 2:
        return 1.0
    distances = squared_distances(gram).sqrt()
    others = distances[~torch.eye(len(gram), dtype=torch.bool)].view(len(gram), -1)
    return float(others.median(dim=1).values.min()) or float(distances.mean()) or 1.0


def weiszfeld(gram: Vector, nu: float, tolerance: float, max_iterations: int) -> tuple[Vector, Vector]:
    """The weights of the smoothed geometric median, and the rows' distances to it, each float64 `[n]`.

    Args:
        gram: float64 `[n, n]`.
        nu: Smoothing, as a distance.
        tolerance: See `GeometricMedian.Options`.
        max_iterations: See `GeometricMedian.Options`.
    """
    own = gram.diagonal()
    weights, is_median = first_step(gram, nu)
    for left in range(0 if is_median else max_iterations, -1, -1):
        products = gram @ weights
        distances = np.sqrt(np.maximum(own - 2 * products + weights @ products, 0.0))
        pulls = 1.0 / np.maximum(distances, nu)
        following = pulls / pulls.sum()
        # The left side bounds the length of the step, the right side has the mean distance; neither is a difference.
        if left == 0 or np.abs(following - weights) @ distances <= tolerance * (following @ distances):
            break
        weights = following
    return weights, distances


def first_step(gram: Vector, nu: float) -> tuple[Vector, bool]:
    """Where Vardi and Zhang's step from the row with the least sum of distances leads.

    Args:
        gram: float64 `[n, n]`.
        nu: Rows that are no farther apart than this are the same point.

    Returns:
        The point's weights, float64 `[n]`, and whether it is that row itself, which then is the median.
    """
    distances = squared_distances(torch.from_numpy(gram)).sqrt().numpy()
    row = distances[distances.sum(axis=1).argmin()]
    same = row <= nu
    shares = same / same.sum()
    pulls = np.where(same, 0.0, 1.0 / np.maximum(row, nu))
    away = pulls - pulls.sum() * shares
    pull = np.sqrt(max(away @ gram @ away, 0.0))
    if pull <= same.sum():
        return shares, True
    stay = same.sum() / pull
    pulled: Vector = pulls / pulls.sum()
    return (1 - stay) * pulled + stay * shares, False
