"""The form of all codecs that give each block of elements a scale and each element a code of a few bits.

The vector is cut into segments of 65,536 elements, a segment into blocks. For each segment, in order: the scales of
its blocks, little-endian float32; then its codes (`packing`). Both are cut short in the last segment. So a vector is
encoded in one pass, and where a segment lies follows from its number.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covey.codecs.contract import Buffer
from covey.codecs.packing import Bytes, Codes, pack, packed_bytes, padding_is_zero, unpack
from covey.codecs.random_streams import SEGMENT
from covey.errors import LayoutError, LimitExceeded, TaskError
from covey.vectors import ComputedVector, spans

Scales = NDArray[np.float32]
_SCALE = np.dtype("<f4")


def power_of_two(block: int) -> int:
    """Check the size of a block, for options.

    Raises:
        ValueError: Not a power of two from 8 to `SEGMENT`.
    """
    if not 8 <= block <= SEGMENT or block & (block - 1):
        raise ValueError(f"must be a power of two from 8 to {SEGMENT}")
    return block


def as_bytes(buffer: Buffer | Tensor) -> Bytes:
    """An encoded vector as uint8 `[size]`: a view, never a copy, not to be written."""
    if isinstance(buffer, Tensor):
        return buffer.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return np.frombuffer(buffer, np.uint8)


def require_size(size: int, wanted: int, d: int, what: str) -> None:
    """Check an encoded vector's size.

    Raises:
        LimitExceeded: It is larger than wanted.
        LayoutError: It is smaller.
    """
    if size > wanted:
        raise LimitExceeded(f"{size} bytes for {d} elements of {what}, which take {wanted}")
    if size < wanted:
        raise LayoutError(f"{size} bytes are too few for {d} elements of {what}, which take {wanted}")


@dataclass(frozen=True)
class BlockForm:
    """Where things lie.

    Attributes:
        bits: Of a code.
        block: Elements that share a scale: a power of two from 8 to `SEGMENT`.
    """

    bits: int
    block: int

    def scales(self, count: int) -> int:
        """How many scales `count` elements of a segment have."""
        return -(-count // self.block)

    def segment_bytes(self, count: int) -> int:
        """Size in bytes of a segment of `count` elements."""
        return _SCALE.itemsize * self.scales(count) + packed_bytes(count, self.bits)

    def size(self, d: int) -> int:
        """Size in bytes of `d` elements."""
        return d // SEGMENT * self.segment_bytes(SEGMENT) + self.segment_bytes(d % SEGMENT)

    def split(self, data: Bytes, segment: int, count: int) -> tuple[Scales, Bytes]:
        """Views of one segment's scales and packed codes, in the bytes of the whole vector."""
        start = segment * self.segment_bytes(SEGMENT)
        middle = start + _SCALE.itemsize * self.scales(count)
        scales = data[start:middle].view(_SCALE)
        return scales, data[middle : middle + packed_bytes(count, self.bits)]

    def write(self, scales: Scales, codes: Codes, out: Bytes) -> memoryview:
        """Write a segment at the beginning of `out`, and return it."""
        size = self.segment_bytes(len(codes))
        scale_bytes, packed = self.split(out, 0, len(codes))
        scale_bytes[:] = scales
        pack(codes, self.bits, packed)
        return out[:size].data


class BlockReader(ComputedVector):
    """Random access to a vector in `BlockForm`; a subclass says what a code is worth.

    Args:
        buffer: The bytes, without a header.
        d: Number of elements.
        form: Where things lie.

    Raises:
        LimitExceeded: More bytes than `d` elements take.
        LayoutError: Fewer; or a scale, a code or the bits behind the last code are not allowed.
    """

    what = "this codec"

    def __init__(self, buffer: Buffer | Tensor, d: int, form: BlockForm) -> None:
        super().__init__(d)
        self.form = form
        self._data = as_bytes(buffer)
        require_size(len(self._data), form.size(d), d, self.what)
        for segment, columns in enumerate(spans(d, SEGMENT)):
            self._check(segment, columns.stop - columns.start)

    def _check(self, segment: int, count: int) -> None:
        scales, packed = self.form.split(self._data, segment, count)
        if not padding_is_zero(packed, count, self.form.bits):
            raise LayoutError(f"{self.what}: the bits behind the last code are not zero")
        if not self.scales_allowed(scales):
            raise LayoutError(f"{self.what}: a scale in segment {segment} is not allowed")
        if not self.codes_allowed(unpack(packed, count, self.form.bits)):
            raise LayoutError(f"{self.what}: a code in segment {segment} has no meaning")

    def scales_allowed(self, scales: Scales) -> bool:
        """Whether all scales `[k]` are finite and not negative."""
        # Seen as integers: the sign bit, infinity and NaN are all at least the bits of infinity.
        return len(scales) == 0 or int(scales.view("<u4").max()) < 0x7F800000

    @abstractmethod
    def codes_allowed(self, codes: Codes) -> bool:
        """Whether each code `[n]` has a meaning."""

    @abstractmethod
    def values(self, codes: Codes, out: Tensor) -> None:
        """Write what the codes `[n]` are worth, in units of their block's scale, into `out`, float32 `[n]`."""

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` into `out`."""
        first, last = columns.start // SEGMENT, -(-columns.stop // SEGMENT)
        for segment in range(first, last) if columns.stop > columns.start else ():
            base = segment * SEGMENT
            start, stop = max(columns.start, base), min(columns.stop, base + SEGMENT)
            piece = out[start - columns.start : stop - columns.start]
            self._decode_segment(segment, slice(start - base, stop - base), piece)

    def _decode_segment(self, segment: int, columns: slice, out: Tensor) -> None:
        """Elements `columns` of a segment, which are widened to whole blocks first."""
        block, count = self.form.block, min(self.d - segment * SEGMENT, SEGMENT)
        start, stop = columns.start // block * block, min(-(-columns.stop // block) * block, count)
        scales, packed = self.form.split(self._data, segment, count)
        packed = packed[start * self.form.bits // 8 : -(-stop * self.form.bits // 8)]
        exact = (start, stop) == (columns.start, columns.stop) and out.is_contiguous()
        target = out if exact else torch.empty(stop - start)
        self.values(unpack(packed, stop - start, self.form.bits), target)
        scale_blocks(target, scales[start // block : -(-stop // block)], block)
        if not exact:
            out.copy_(target[columns.start - start : columns.stop - start])

    def block_scales(self) -> Scales:
        """All scales in order, float32, in new memory."""
        parts = [
            self.form.split(self._data, segment, columns.stop - columns.start)[0]
            for segment, columns in enumerate(spans(self.d, SEGMENT))
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def scale_blocks(values: Tensor, scales: Scales, block: int) -> None:
    """Multiply each block of `values` (float32 `[n]`, contiguous) by its scale, in place."""
    factors = torch.from_numpy(scales.astype(np.float32))
    whole = len(values) // block
    values[: whole * block].view(whole, block).mul_(factors[:whole, None])
    if whole * block < len(values):
        values[whole * block :].mul_(factors[-1])


def divide_blocks(values: Tensor, scales: Tensor, block: int, out: Tensor) -> None:
    """Divide each block of `values` (float32 `[n]`) by its scale into `out`; a block with scale 0 stays as it is."""
    divisors = torch.where(scales > 0, scales, 1.0)
    whole = len(values) // block
    shape = (whole, block)
    torch.div(values[: whole * block].view(shape), divisors[:whole, None], out=out[: whole * block].view(shape))
    if whole * block < len(values):
        torch.div(values[whole * block :], divisors[-1], out=out[whole * block :])


def block_maxima(values: Tensor, block: int, scratch: Tensor) -> Tensor:
    """The largest magnitude in each block, float32 `[ceil(n / block)]`; `scratch` has the form of `values`.

    Raises:
        TaskError: A value is not finite.
    """
    torch.abs(values, out=scratch)
    whole = len(values) // block
    maxima = scratch[: whole * block].view(whole, block).amax(1)
    if whole * block < len(values):
        maxima = torch.cat([maxima, scratch[whole * block :].amax(0, keepdim=True)])
    return require_finite_values(maxima)


def require_finite_values(values: Tensor) -> Tensor:
    """The values themselves, float32 `[n]`.

    Raises:
        TaskError: One is NaN or infinite.
    """
    # A sum shows every NaN and infinity for a fraction of the price; it may itself overflow.
    if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
        raise TaskError("a vector with values that are not finite cannot be encoded")
    return values
