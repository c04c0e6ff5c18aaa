"""Signs, eight to a byte: packing them, and random access to packed ones.

Bit j of byte i is element 8 i + j, lowest bit first; it is set where the element is +1 (value >= 0). The bits past the
last element are zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.vectors.contract import ComputedVector

_BITS = 8
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) * 2 - 1
"""What each byte stands for: float32 `[256, 8]` of +1 and -1."""


def packed_bytes(d: int) -> int:
    """How many bytes the signs of `d` elements take."""
    return -(-d // _BITS)


def packed(positive: Tensor) -> memoryview:
    """Pack signs.

    Args:
        positive: bool `[b]`.

    Returns:
        `ceil(b / 8)` bytes, the bits past b zero.
    """
    return np.packbits(positive.numpy(), bitorder="little").data


class PackedSigns(ComputedVector):
    """Random access to packed signs, as +scale and -scale.

    Args:
        bits: uint8 `[ceil(d / 8)]`; never written.
        d: Number of elements.
        scale: What a set bit decodes to.

    Raises:
        LayoutError: They are of another form, or a bit past the last element is set.
    """

    def __init__(self, bits: Tensor, d: int, scale: float = 1.0) -> None:
        super().__init__(d)
        if bits.dtype != torch.uint8 or bits.shape != (packed_bytes(d),):
            raise LayoutError(f"{d} packed signs are {packed_bytes(d)} bytes, not {bits.dtype} {tuple(bits.shape)}")
        self._bits, self._bytes = bits, bits.numpy()
        self._table = _SIGNS * np.float32(scale)
        self._aligned = torch.empty(0)
        if d % _BITS and int(self._bytes[-1]) >> d % _BITS:
            raise LayoutError(f"bits behind the last of {d} signs are set")

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` into `out`."""
        first, last = columns.start // _BITS, packed_bytes(columns.stop)
        width = columns.stop - columns.start
        if width == (last - first) * _BITS and out.is_contiguous():
            self._unpack(first, last, out)
            return
        # Whole bytes are unpacked, and what was asked for is cut out of them.
        aligned = self._aligned_room((last - first) * _BITS)
        self._unpack(first, last, aligned)
        skipped = columns.start - first * _BITS
        out.copy_(aligned[skipped : skipped + width])

    def signs(self, columns: slice) -> Tensor:
        """The packed bits themselves, a view wherever they end with a byte or with the vector.

        Raises:
            LayoutError: `columns.start` is not a multiple of 8.
        """
        if columns.start % _BITS:
            raise LayoutError(f"packed signs begin at a multiple of {_BITS}, not at {columns.start}")
        words = self._bits[columns.start // _BITS : packed_bytes(columns.stop)]
        if columns.stop % _BITS == 0 or columns.stop == self.d:
            return words
        words = words.clone()
        words[-1] &= (1 << columns.stop % _BITS) - 1
        return words

    def _unpack(self, first: int, last: int, out: Tensor) -> None:
        # An index of one byte cannot leave a table of 256 rows; "clip" spares the check.
        np.take(self._table, self._bytes[first:last], axis=0, out=out.numpy().reshape(-1, _BITS), mode="clip")

    def _aligned_room(self, size: int) -> Tensor:
        if len(self._aligned) < size:
            self._aligned = torch.empty(size)
        return self._aligned[:size]
