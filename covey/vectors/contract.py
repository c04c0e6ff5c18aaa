"""What a vector is here: a length, and any block of its elements when it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

BLOCK_ELEMENTS = 1 << 18
"""Elements to read at a time: 1 MiB of float32, a core's second-level cache. Measured with 4 rows of 25 million: 65
thousand elements take 1.2 times, one block for everything 1.5 times as long."""


def spans(d: int, width: int) -> list[slice]:
    """The elements `0..d` as consecutive slices of `width` (the last may be shorter)."""
    if width < 1:
        raise ValueError(f"a block has at least one element, not {width}")
    return [slice(start, min(start + width, d)) for start in range(0, d, width)]


def placed(block: Tensor, out: Tensor | None) -> Tensor:
    """A block where the reader wants it: in `out`, or as it is."""
    return block if out is None else out.copy_(block)


class Vector(ABC):
    """A vector of `d` float32 that can be read more than once, block by block.

    Attributes:
        d: Number of elements.
    """

    d: int

    @abstractmethod
    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Elements `columns` (step 1, in `0..d`): float32 `[b]`.

        Args:
            columns: Which elements.
            out: Where to put them, float32 `[b]`; it is then what is returned. Without it the result is read-only and
                valid until this vector's next `read`: a view of what is there, or memory that is used again.

        Raises:
            TaskError: A value of a node's own vector is not finite.
        """

    def dense(self, width: int = BLOCK_ELEMENTS) -> Tensor:
        """The whole vector, float32 `[d]`, in new memory."""
        out = torch.empty(self.d)
        for columns in spans(self.d, width):
            out[columns] = self.read(columns)
        return out

    def signs(self, columns: slice) -> Tensor:
        """The signs of elements `columns`: uint8 `[ceil(b / 8)]`, lowest bit first, set where value >= 0.

        The bits past b are zero. `columns.start` is a multiple of 8. Valid until the next call.
        """
        return torch.from_numpy(np.packbits((self.read(columns) >= 0).numpy(), bitorder="little"))


class ComputedVector(Vector):
    """A vector whose elements are computed (decoded, added up) into memory when they are read."""

    def __init__(self, d: int) -> None:
        self.d = d
        self._scratch = torch.empty(0)

    @abstractmethod
    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` (step 1, inside `0..d`) into `out`, float32 of that length."""

    @override
    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Computed into `out`, or into memory that the next call uses again."""
        if out is None:
            out = self._room(columns.stop - columns.start)
        self.decode(columns, out)
        return out

    def _room(self, width: int) -> Tensor:
        if len(self._scratch) < width:
            self._scratch = torch.empty(width)
        return self._scratch[:width]
