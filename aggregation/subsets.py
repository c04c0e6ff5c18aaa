"""Rules that try every subset of a round's updates: which subsets there are, and when there are too many."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, islice
from math import comb
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from covey.aggregation.contract import Aggregator, ByzantineOptions
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed


class SubsetOptions(ByzantineOptions):
    """Options of a rule that tries all subsets of n - f updates."""

    max_subsets: int = Field(default=200_000, ge=1)
    """A round with more subsets to try is refused."""


class SubsetRule(Aggregator):
    """A rule that searches all n! / (f! (n - f)!) subsets of n - f updates, and refuses rather than approximates."""

    options: SubsetOptions
    rule_name: ClassVar[str] = ""

    def min_updates(self) -> int:
        """2f + 1."""
        return 2 * self.options.f + 1

    def refusal(self, n: int) -> str:
        """Why n updates have too many subsets; empty if they have not."""
        f, most = self.options.f, self.options.max_subsets
        if n < f or comb(n, f) <= most:
            return ""
        return (
            f"{n} updates with f = {f} have {comb(n, f)} subsets, more than max_subsets = {most}; raise that, or "
            "choose a rule that does not enumerate"
        )

    def require(self, updates: UpdateMatrix) -> None:
        """Refuse a round with too few updates, or with too many subsets.

        Raises:
            RunFailed: Fewer than `min_updates()` rows, or more than `max_subsets` subsets.
        """
        super().require(updates)
        if reason := self.refusal(updates.n):
            raise RunFailed(f"{self.rule_name}: {reason}")


def subsets(n: int, size: int, at_once: int) -> Iterator[NDArray[np.intp]]:
    """All subsets of `size` of n rows in lexicographic order, at most `at_once` at a time: `[s, size]`."""
    every = combinations(range(n), size)
    while some := list(islice(every, max(at_once, 1))):
        yield np.array(some, dtype=np.intp)
