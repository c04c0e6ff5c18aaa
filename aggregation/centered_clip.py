"""Centred clipping: steps from the last result towards the updates, each bounded in length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PluginOptions, Verdict
from covey.aggregation.gram import distances_to, numbers_of
from covey.aggregation.matrix import UpdateMatrix
from covey.vectors import Vector, placed

CENTER = "center"


class CenteredClip(Aggregator):
    """v <- v + (1/n) sum_i (x_i - v) min(1, tau / ||x_i - v||), `iterations` times, from the last round's result.

    Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization" (ICML 2021, arXiv 2012.10333),
    Algorithm 2. In the first round v is zero: the base model. An update moves the result by at most tau / n a step. The
    paper combines it with momentum on the workers (`[exchange] worker_momentum`).

    It assumes a bounded variance of the honest updates, of which tau is a multiple, rather than a number f; tau is in
    the units of the updates' norms, and has to be chosen for them. Deviation: without a tau, each step takes the median
    of the updates' distances to v, which fits updates of every size and is out of a minority's reach (fewer than
    n / 2). Every update counts the same, whatever its weight.

    The kept state `center` is the direction itself. A verdict's weight is the row's coefficient in the direction (they
    sum to less than one while the last result still has a part), its `distance` that to v before the last step, its
    `factor` how much of its difference was used there.
    """

    class Options(PluginOptions):
        """Options of centred clipping."""

        tau: float | None = Field(default=None, gt=0)
        """The radius: what of an update's difference to the centre is longer is cut off; default: the median length."""
        iterations: int = Field(default=3, ge=1, le=1000)

    options: Options
    state_names = (CENTER,)

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        """The last v, float32 `[d]`; every row is accepted.

        Raises:
            RunFailed: No rows.
            LayoutError: The centre has another length than the rows.
        """
        self.require(updates)
        n = updates.n
        matrix = updates.extended([state[CENTER]]) if CENTER in state else updates
        gram = matrix.gram()
        weights = torch.zeros(matrix.n, dtype=torch.float64)
        weights[n:] = 1.0
        distances = factors = torch.empty(0)
        for _ in range(self.options.iterations):
            distances = distances_to(gram, weights)[:n]
            tau = distances.quantile(0.5) if self.options.tau is None else self.options.tau
            factors = torch.where(distances > tau, tau / distances, 1.0)
            weights *= 1.0 - factors.mean()
            weights[:n] += factors / n
        direction = _Once(matrix.weighted_sum(weights))
        verdicts = [
            Verdict(node, "accepted", share=weight, numbers=measured)
            for node, weight, measured in zip(
                updates.nodes, weights[:n].tolist(), numbers_of(distance=distances, factor=factors), strict=True
            )
        ]
        return Aggregate(direction, tuple(verdicts), {CENTER: direction})


class _Once(Vector):
    """A direction that is asked for each block twice, as the result and as what is kept, and computes it once."""

    def __init__(self, inner: Vector) -> None:
        self.d = inner.d
        self._inner, self._columns, self._block = inner, slice(0, 0), torch.empty(0)

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Elements `columns`, kept until others are asked for."""
        if columns != self._columns:
            self._block, self._columns = self._inner.read(columns), columns
        return placed(self._block, out)
