"""Directions: the vector that a rule gives the server optimizer, computed block by block when asked for.

A rule never makes its result: it says how to compute any block of columns. So one walk over the rows is also
the walk that applies the server optimizer and writes the new version, and no vector of the model's size is
held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from covey.codecs.contract import spans as spans
from covey.errors import LayoutError

if TYPE_CHECKING:
    from covey.aggregation.matrix import UpdateMatrix

BLOCK_COLUMNS = 1 << 18
"""Columns a block of a direction should have: 1 MiB of float32, a core's second-level cache. Measured with 4
rows of 25 million: 65 thousand columns take 1.2 times, one block for everything 1.5 times as long."""

SLAB_ELEMENTS = 1 << 23
"""Float32 of all rows that a coordinate-wise rule holds at once: 32 MiB, whatever the number of nodes."""


class Direction(ABC):
    """A vector of `d` float32 by which the base model is to move (with plain SGD: base + lr x direction).

    Attributes:
        d: Number of elements.
    """

    d: int

    @abstractmethod
    def block(self, columns: slice) -> Tensor:
        """Elements `columns` (step 1, in `0..d`): float32 `[b]`, read-only, valid until the next `block`."""

    def dense(self, width: int = BLOCK_COLUMNS) -> Tensor:
        """The whole vector, float32 `[d]`, in new memory."""
        out = torch.empty(self.d)
        for columns in spans(self.d, width):
            out[columns] = self.block(columns)
        return out


class Flat(Direction):
    """A direction that is in memory (or in a mapped file) already.

    Args:
        tensor: float32 `[d]`.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 1 or tensor.dtype != torch.float32:
            raise LayoutError(f"a direction is a vector of float32, not {tensor.dtype} {tuple(tensor.shape)}")
        self._tensor = tensor
        self.d = len(tensor)

    def block(self, columns: slice) -> Tensor:
        """A view of elements `columns`."""
        return self._tensor[columns]


class WeightedRows(Direction):
    """sum_i weights[i] x row i, in row order, accumulated in float32.

    Rows are read where they lie, once each; a row of weight zero is not read at all (and so cannot spoil the
    sum).

    Args:
        matrix: n rows.
        weights: float64 `[n]`; they need not sum to one.
    """

    def __init__(self, matrix: UpdateMatrix, weights: Tensor) -> None:
        if weights.shape != (matrix.n,):
            raise LayoutError(f"{matrix.n} rows need {matrix.n} weights, not {tuple(weights.shape)}")
        self.d = matrix.d
        self._terms = [(matrix.rows[i].reader, w) for i, w in enumerate(weights.tolist()) if w != 0.0]
        self._sum = torch.empty(0)

    def block(self, columns: slice) -> Tensor:
        """Elements `columns` of the sum, in memory that the next call uses again."""
        width = columns.stop - columns.start
        if len(self._sum) < width:
            self._sum = torch.empty(width)
        total = self._sum[:width]
        if not self._terms:
            return total.zero_()
        (first, weight), *others = self._terms
        torch.mul(first.read(columns), weight, out=total)
        for reader, weight in others:
            total.add_(reader.read(columns), alpha=weight)
        return total


class BlockRule(Direction):
    """A coordinate-wise rule: a function of the `[n, b]` slab, block by block (median, trimmed mean, signs).

    Args:
        matrix: n rows.
        rule: From float32 `[n, b]` (its own to overwrite) to float32 `[b]`; element j must depend on column j
            only.
    """

    def __init__(self, matrix: UpdateMatrix, rule: Callable[[Tensor], Tensor]) -> None:
        self.d = matrix.d
        self._matrix, self._rule = matrix, rule
        self._slab = torch.empty(0)

    def block(self, columns: slice) -> Tensor:
        """The rule's value on `columns`, at most `SLAB_ELEMENTS` of the rows at a time."""
        width = max(1, SLAB_ELEMENTS // max(1, self._matrix.n))
        if columns.stop - columns.start <= width:
            return self._part(columns)
        parts = spans(columns.stop - columns.start, width)
        return torch.cat([self._part(_moved(part, columns.start)).clone() for part in parts])

    def _part(self, columns: slice) -> Tensor:
        size = self._matrix.n * (columns.stop - columns.start)
        if len(self._slab) < size:
            self._slab = torch.empty(size)
        slab = self._slab[:size].view(self._matrix.n, -1)
        self._matrix.fill(columns, slab)
        return self._rule(slab)


def _moved(columns: slice, by: int) -> slice:
    return slice(columns.start + by, columns.stop + by)
