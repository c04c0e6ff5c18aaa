"""The k largest of many keys without sorting them: the k-th largest key, and how many of its equals are selected too.

Keys that fit into one block are partitioned. For more, the key comes from two histograms, in two passes: first of the
upper halves of all keys, then of the lower halves of those whose upper half is the k-th largest's. Memory is a block of
keys and a histogram of 2^16 counts, whatever k and the number of elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from covey.vectors import BLOCK_ELEMENTS, spans

Keys = NDArray[np.int32]
Positions = NDArray[np.int64]
Counts = NDArray[np.int64]
KeysOf = Callable[[slice], Keys]
"""Gives the keys of some elements: int32 `[b]`, none negative; it is asked for each block more than once."""
_HALF_BITS = 16
_HALF = 1 << _HALF_BITS


@dataclass(frozen=True)
class Cut:
    """Which elements are among the k largest.

    Attributes:
        key: The k-th largest key: all elements with larger ones are selected.
        ties: How many of those with this very key are selected: the first ones.
    """

    key: int
    ties: int


def cut(keys: KeysOf, d: int, k: int) -> Cut:
    """Find the k largest of `d` keys; ties go to the lowest index.

    Args:
        keys: Gives the keys.
        d: Number of elements.
        k: How many are wanted, 1 to d.
    """
    if d <= BLOCK_ELEMENTS:
        # All at once; the histograms would cost a small vector more than itself.
        values = keys(slice(0, d))
        key = int(np.partition(values, d - k)[d - k])
        return Cut(key, k - int(np.count_nonzero(values > key)))
    high, left = _largest(_histogram(lambda columns: keys(columns) >> _HALF_BITS, d), k)
    low, ties = _largest(_histogram(lambda columns: _lower_half(keys(columns), high), d), left)
    return Cut((high << _HALF_BITS) | low, ties)


class Selector:
    """Finds the selected elements block by block, from the first on.

    Args:
        found: What is selected.

    Attributes:
        left: What is selected of the blocks that are still to come.
    """

    def __init__(self, cutoff: Cut) -> None:
        self.left = cutoff

    def next(self, keys: Keys) -> Positions:
        """Positions of the selected elements inside the next block: int64 `[m]`, increasing."""
        key, ties = self.left.key, self.left.ties
        positions = np.flatnonzero(keys >= key)
        at_threshold = keys[positions] == key
        tied = int(np.count_nonzero(at_threshold))
        if tied > ties:
            positions = positions[~at_threshold | (np.cumsum(at_threshold) <= ties)]
        self.left = Cut(key, max(ties - tied, 0))
        return positions


def _lower_half(keys: Keys, high: int) -> Keys:
    lower: Keys = keys[keys >> _HALF_BITS == high] & (_HALF - 1)
    return lower


def _histogram(halves: KeysOf, d: int) -> Counts:
    counts = np.zeros(_HALF, np.int64)
    for columns in spans(d, BLOCK_ELEMENTS):
        counts += torch.bincount(torch.from_numpy(halves(columns)), minlength=_HALF).numpy()
    return counts


def _largest(counts: Counts, k: int) -> tuple[int, int]:
    """The bin of the k-th largest, and how many in that bin are among the k largest."""
    at_least = np.cumsum(counts[::-1])
    index = int(np.searchsorted(at_least, k))
    before = int(at_least[index - 1]) if index else 0
    return len(counts) - 1 - index, k - before
