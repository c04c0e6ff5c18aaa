"""The operations that a gossip protocol's mathematics is written in, over vectors that are read block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from covey.aggregation.order_statistics import mean, network, select
from covey.gossip.protocols.contract import Algebra
from covey.vectors import BLOCK_ELEMENTS, FunctionVector, LinearCombination, Vector, spans


class BlockAlgebra(Algebra[Vector]):
    """Over `covey.vectors`, in float32; distances in float64.

    Args:
        d: Number of elements of every vector.
    """

    def __init__(self, d: int) -> None:
        self._d = d

    @override
    def combination(self, terms: Sequence[tuple[Vector, float]]) -> Vector:
        return LinearCombination(terms, self._d)

    @override
    def distances(self, origin: Vector, others: Sequence[Vector]) -> list[float]:
        return [math.sqrt(math.fsum(self._squares(origin, other))) for other in others]

    def _squares(self, origin: Vector, other: Vector) -> list[float]:
        """Of each block; by numpy, whose sums do not depend on the number of threads."""
        blocks = spans(self._d, BLOCK_ELEMENTS)
        apart = (other.read(block).numpy().astype(np.float64) - origin.read(block).numpy() for block in blocks)
        return [float(np.square(difference).sum()) for difference in apart]

    @override
    def trimmed_mean(self, vectors: Sequence[Vector], trimmed: int) -> Vector:
        chosen = network(len(vectors), frozenset(range(trimmed, len(vectors) - trimmed)))

        def block(columns: slice) -> Tensor:
            return mean(select(torch.stack([vector.read(columns) for vector in vectors]), chosen))

        return FunctionVector(self._d, block)
