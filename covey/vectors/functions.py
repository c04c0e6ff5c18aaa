"""A vector whose blocks a function gives."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from typing_extensions import override

from covey.vectors.contract import Vector, placed


class FunctionVector(Vector):
    """A vector that is computed where it is read, in memory of the function's own.

    Args:
        d: Number of elements.
        block: From columns (step 1, in `0..d`) to float32 `[b]`; the same columns always give the same values, which
            need not be finite.
    """

    def __init__(self, d: int, block: Callable[[slice], Tensor]) -> None:
        self.d = d
        self._block = block

    @override
    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        return placed(self._block(columns), out)
