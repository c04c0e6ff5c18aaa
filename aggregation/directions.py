"""Coordinate-wise rules as vectors: computed block by block from a slab of all rows.

A rule never makes its result: it says how to compute any block of columns. So one walk over the rows is also
the walk that applies the server optimizer and writes the new version, and no vector of the model's size is
held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from covey.vectors import Vector, placed, spans

SLAB_ELEMENTS = 1 << 23
"""Float32 of all rows that a coordinate-wise rule holds at once: 32 MiB, whatever the number of nodes."""


class Rows(Protocol):
    """n rows of d float32 that are decoded into a slab, as `covey.aggregation.matrix.UpdateMatrix` has them."""

    n: int
    d: int

    def fill(self, columns: slice, out: Tensor) -> None:
        """Decode `columns` of every row into `out`, float32 `[n, b]`."""


class BlockRule(Vector):
    """A coordinate-wise rule: a function of the `[n, b]` slab, block by block (median, trimmed mean, signs).

    Args:
        matrix: n rows.
        rule: From float32 `[n, b]` (its own to overwrite) to float32 `[b]`; element j must depend on column j
            only.
    """

    def __init__(self, matrix: Rows, rule: Callable[[Tensor], Tensor]) -> None:
        self.d = matrix.d
        self._matrix, self._rule = matrix, rule
        self._slab = torch.empty(0)

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """The rule's value on `columns`, at most `SLAB_ELEMENTS` of the rows at a time."""
        width = max(1, SLAB_ELEMENTS // max(1, self._matrix.n))
        if columns.stop - columns.start <= width:
            return placed(self._part(columns), out)
        parts = spans(columns.stop - columns.start, width)
        return placed(torch.cat([self._part(_moved(part, columns.start)).clone() for part in parts]), out)

    def _part(self, columns: slice) -> Tensor:
        size = self._matrix.n * (columns.stop - columns.start)
        if len(self._slab) < size:
            self._slab = torch.empty(size)
        slab = self._slab[:size].view(self._matrix.n, -1)
        self._matrix.fill(columns, slab)
        return self._rule(slab)


def _moved(columns: slice, by: int) -> slice:
    return slice(columns.start + by, columns.stop + by)
