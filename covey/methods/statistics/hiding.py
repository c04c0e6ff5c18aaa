"""Which cells of a table are hidden, so that nothing is said of fewer than k examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HIDDEN = -1
"""Stands for the number in a hidden cell."""
FEW_VALUES = 3
"""With so many different values, number, mean and variance together tell how often each occurs."""


def with_hidden(cells: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The cells of a table whose total is known, those hidden (-1) that may not be said: int64 `[m]`.

    Hidden are the cells of 1 to k - 1 examples; an empty cell is said, as no example is behind it. Then further ones,
    until four are hidden, and k examples in them (complementary suppression): one would follow from the total. Mean and
    variance, which are equations too, are then those of the cells as they are said. First come the smallest, and of
    these what is near.

    Args:
        cells: Numbers of examples, int64 `[m]`, k in all at least, or none.
        k: 1: nothing is hidden.
    """
    hidden = (cells > 0) & (cells < k)
    while hidden.any() and (hidden.sum() <= FEW_VALUES or cells[hidden].sum() < k):
        further = ~hidden & ((cells > 0) | (hidden.sum() <= FEW_VALUES))
        if not further.any():
            break
        places = np.flatnonzero(further)
        distance = np.abs(places[:, None] - np.flatnonzero(hidden)).min(1)
        hidden[places[np.lexsort((distance, cells[places]))[0]]] = True
    return np.where(hidden, HIDDEN, cells)


def tells_too_much(values: NDArray[np.float64], k: int) -> bool:
    """Whether mean and variance of these values, with their number, would tell of fewer than k examples."""
    if len(values) < k:
        return True
    _, counts = np.unique(values, return_counts=True)
    return len(counts) <= FEW_VALUES and bool(counts.min() < k)
