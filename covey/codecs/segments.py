"""Which tensor of a layout each element belongs to, for codecs that scale every tensor apart."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covey.errors import LayoutError, TaskError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, Vector, spans

Numbers = NDArray[np.float32]


class Segments:
    """The tensors of a vector, end to end.

    Args:
        d: Number of elements.
        layout: The vector's tensors in order; None: the whole vector is one.

    Attributes:
        count: Number of tensors, those without elements too.

    Raises:
        LayoutError: The layout has another number of elements.
    """

    def __init__(self, d: int, layout: Layout | None = None) -> None:
        sizes = [d] if layout is None else [spec.numel for spec in layout.tensors]
        self._ends = list(accumulate(sizes))
        self.count = len(sizes)
        if sum(sizes) != d:
            raise LayoutError(f"a layout of {sum(sizes)} elements does not fit a vector of {d}")

    def pieces(self, columns: slice) -> Iterator[tuple[int, slice]]:
        """The tensors that elements `columns` are cut into, each with its place inside `columns`."""
        at, index = columns.start, bisect_right(self._ends, columns.start)
        while at < columns.stop:
            end = min(self._ends[index], columns.stop)
            if end > at:
                yield index, slice(at - columns.start, end - columns.start)
            at, index = end, index + 1


def maxima(source: Vector, segments: Segments) -> Numbers:
    """The largest magnitude in each tensor, 0 for one without elements: float32 `[count]`.

    Raises:
        TaskError: A value is not finite.
    """
    norms = np.zeros(segments.count, np.float32)
    for columns in spans(source.d, BLOCK_ELEMENTS):
        block = source.read(columns)
        for index, piece in segments.pieces(columns):
            norms[index] = np.maximum(norms[index], _magnitude(block[piece]))
    # A maximum over zeros may be -0.
    return _finite(np.abs(norms))


def mean_magnitudes(source: Vector, segments: Segments) -> Numbers:
    """The mean magnitude of each tensor, summed in float64, 0 for one without elements: float32 `[count]`.

    Raises:
        TaskError: A value is not finite.
    """
    totals, sizes = np.zeros(segments.count), np.zeros(segments.count)
    for columns in spans(source.d, BLOCK_ELEMENTS):
        block = source.read(columns)
        for index, piece in segments.pieces(columns):
            totals[index] += np.add.reduce(np.abs(block[piece].numpy()), dtype=np.float64)
            sizes[index] += piece.stop - piece.start
    return _finite((totals / np.maximum(sizes, 1)).astype(np.float32))


def _magnitude(block: Tensor) -> float:
    low, high = block.aminmax()
    return float(torch.maximum(-low, high))


def _finite(numbers: Numbers) -> Numbers:
    if not np.isfinite(numbers).all():
        raise TaskError("a vector with values that are not finite cannot be encoded")
    return numbers
