"""Sums of vectors with factors: weighted means, error feedback, momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covey.vectors.contract import ComputedVector, Vector


class LinearCombination(ComputedVector):
    """sum_i factor_i x vector_i, in the order of the terms, accumulated in float32.

    A term with factor zero is not read at all (and so cannot spoil the sum).

    Args:
        terms: Vectors of equal length with their factors.
        d: Number of elements, for a sum that may have no terms (then it is zero).

    Raises:
        ValueError: The vectors have different lengths, or there are none and `d` is not given.
    """

    def __init__(self, terms: Sequence[tuple[Vector, float]], d: int | None = None) -> None:
        lengths = {vector.d for vector, _ in terms} | ({d} if d is not None else set())
        if len(lengths) != 1:
            raise ValueError(f"a sum needs vectors of one length, not of {sorted(lengths)}")
        super().__init__(lengths.pop())
        self._terms = [(vector, factor) for vector, factor in terms if factor != 0.0]

    @property
    def is_zero(self) -> bool:
        """Whether there is nothing to add up: no terms, or only such sums."""
        return all(isinstance(vector, LinearCombination) and vector.is_zero for vector, _ in self._terms)

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` of the sum into `out`."""
        if not self._terms:
            out.zero_()
            return
        (first, factor), *others = self._terms
        torch.mul(first.read(columns), factor, out=out)
        for vector, factor in others:
            out.add_(vector.read(columns), alpha=factor)
