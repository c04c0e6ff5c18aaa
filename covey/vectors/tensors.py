"""A vector that is a tensor already, in memory or in a mapped file."""

from __future__ import annotations

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.vectors.contract import Vector, placed


class TensorVector(Vector):
    """The elements of a tensor; reading them copies nothing.

    Args:
        tensor: float32 `[d]`; never written.

    Raises:
        LayoutError: It is not a vector of float32.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 1 or tensor.dtype != torch.float32:
            raise LayoutError(f"this must be a vector of float32, not {tensor.dtype} {tuple(tensor.shape)}")
        self._tensor = tensor
        self.d = len(tensor)

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """A view of elements `columns`, or `out` with a copy of them."""
        return placed(self._tensor[columns], out)
