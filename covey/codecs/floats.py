"""Shorter floating-point numbers: fp16, bf16, and fp8 with a scale for each block of elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from covey.codecs.blocked import (
    BlockForm,
    BlockReader,
    Scales,
    as_bytes,
    block_maxima,
    divide_blocks,
    require_finite_values,
    require_size,
)
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.integers import BlockSize
from covey.codecs.packing import Bytes, Codes
from covey.codecs.random_streams import SEGMENT
from covey.errors import LayoutError
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import BLOCK_ELEMENTS, ComputedVector, Vector, spans

_MAGNITUDE = np.uint16(0x7FFF)
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
"""Bits of infinity; those of NaN are above."""


class Bf16(Codec):
    """bfloat16, 2 bytes an element, to the nearest (ties to even); 8 significant bits.

    What would round to infinity becomes the largest finite number.
    """

    dtype: ClassVar[torch.dtype] = torch.bfloat16

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly 2 bytes an element."""
        return 2 * d

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`; nothing of the context is used.

        Raises:
            TaskError: A value is not finite.
        """
        limit, width = torch.finfo(self.dtype).max, min(BLOCK_ELEMENTS, source.d)
        clamped, short = torch.empty(width), torch.empty(width, dtype=self.dtype)
        for columns in spans(source.d, BLOCK_ELEMENTS):
            count = columns.stop - columns.start
            values = require_finite_values(source.read(columns).detach())
            torch.clamp(values, -limit, limit, out=clamped[:count])
            short[:count].copy_(clamped[:count])
            yield short[:count].view(torch.uint8).numpy().data

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: Too many bytes.
            LayoutError: Too few, or a value is not finite.
        """
        return HalfReader(as_bytes(buffer), d, self.dtype)


class Fp16(Bf16):
    """IEEE 754 binary16, 2 bytes an element, to the nearest (ties to even); 11 significant bits.

    Magnitudes above 65504 become 65504; those below 2^-24 vanish, and below 2^-14 they lose digits.
    """

    dtype = torch.float16


class HalfReader(ComputedVector):
    """Random access to numbers of 16 bits.

    Args:
        data: uint8 `[2 * d]`.
        d: Number of elements.
        dtype: float16 or bfloat16.

    Raises:
        LimitExceeded: Too many bytes.
        LayoutError: Too few, or a value is not finite.
    """

    def __init__(self, data: Bytes, d: int, dtype: torch.dtype) -> None:
        super().__init__(d)
        what = str(dtype).removeprefix("torch.")
        require_size(len(data), 2 * d, d, what)
        self._bits, self._dtype = data.view("<u2"), dtype
        for columns in spans(d, SEGMENT):
            if int((self._bits[columns] & _MAGNITUDE).max()) >= _INFINITY[dtype]:
                raise LayoutError(f"{what}: a value in elements {columns.start} to {columns.stop - 1} is not finite")

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` into `out`, exactly."""
        for part in spans(columns.stop - columns.start, SEGMENT):
            bits = self._bits[columns.start + part.start : columns.start + part.stop]
            out[part].copy_(torch.from_numpy(bits.view(np.int16).copy()).view(self._dtype))


class Fp8Options(PluginOptions):
    """Options of `fp8`."""

    format: Literal["e4m3", "e5m2"] = "e4m3"
    """4 bits of exponent and 3 of mantissa (largest number 448), or 5 and 2 (largest number 57344)."""
    block: BlockSize = 256
    """Elements that share a scale: a power of two, 8 to 65536."""


class Fp8(Codec):
    """8-bit floating point with a scale for each `block` elements, to the nearest (ties to even).

    The scale is the smallest power of two, from 2^-126 to 2^112, with which the largest magnitude of the block fits, so
    that scaling loses nothing; only magnitudes above 2^112 times the format's largest number (e4m3: 2.3e36) are
    cut to that. Zero only where the block is zero.

    Formats: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, arXiv 2209.05433; the largest
    numbers are 448 and 57344, and the tests compare with torch.
    """

    Options = Fp8Options
    options: Fp8Options

    @property
    def form(self) -> BlockForm:
        """Where things lie."""
        return BlockForm(8, self.options.block)

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly: a byte an element, and 4 bytes a block."""
        return self.form.size(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`; nothing of the context is used.

        Raises:
            TaskError: A value is not finite.
        """
        form, dtype = self.form, _DTYPES[self.options.format]
        limit, scratch = torch.finfo(dtype).max, torch.empty(min(SEGMENT, source.d))
        out = np.empty(form.segment_bytes(len(scratch)), np.uint8)
        for columns in spans(source.d, SEGMENT):
            values = source.read(columns).detach().contiguous()
            work = scratch[: len(values)]
            scales = power_scales(block_maxima(values, form.block, work), limit)
            divide_blocks(values, scales, form.block, work)
            codes = work.clamp_(-limit, limit).to(dtype).view(torch.uint8).numpy()
            yield form.write(scales.numpy(), codes, out)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: Too many bytes.
            LayoutError: Too few; a scale that is not one of those above, or a value that is not finite.
        """
        return Fp8Reader(buffer, d, self.form, self.options.format)


_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_LARGEST_CODE = {"e4m3": 0x7E, "e5m2": 0x7B}
"""Bits of the largest finite number."""
_LEAST_EXPONENT, _MOST_EXPONENT = -126, 112


def power_scales(maxima: Tensor, limit: float) -> Tensor:
    """For each block's largest magnitude, float32 `[k]`, the scale that `Fp8` says, float32 `[k]`."""
    # frexp is exact: maximum / limit = mantissa * 2^exponent, mantissa in [0.5, 1).
    mantissa, exponent = torch.frexp(maxima.double() / limit)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp_(_LEAST_EXPONENT, _MOST_EXPONENT)
    return torch.where(maxima > 0, torch.ldexp(torch.ones(len(maxima)), exponent), 0.0)


class Fp8Reader(BlockReader):
    """Random access to 8-bit floating point; see `BlockReader`."""

    what = "fp8"

    def __init__(self, buffer: Buffer | Tensor, d: int, form: BlockForm, name: str) -> None:
        self._name = name
        super().__init__(buffer, d, form)

    def scales_allowed(self, scales: Scales) -> bool:
        """Whether each scale is zero or a power of two in the range."""
        bits = scales.view("<u4")
        exponent, mantissa = bits >> 23, bits & 0x7FFFFF
        low, high = _LEAST_EXPONENT + 127, _MOST_EXPONENT + 127
        powers = (mantissa == 0) & (exponent >= low) & (exponent <= high)
        return bool((powers | (bits == 0)).all())

    def codes_allowed(self, codes: Codes) -> bool:
        """Whether each code is a finite number."""
        return len(codes) == 0 or int((codes & np.uint8(0x7F)).max()) <= _LARGEST_CODE[self._name]

    def values(self, codes: Codes, out: Tensor) -> None:
        """The codes as numbers, by way of binary16, whose bits theirs are but for the place."""
        wide = codes.astype(np.uint16)
        if self._name == "e5m2":
            wide <<= 8
            out.copy_(torch.from_numpy(wide.view(np.int16)).view(torch.float16))
            return
        sign = (wide & np.uint16(0x80)) << np.uint16(8)
        wide &= np.uint16(0x7F)
        wide <<= np.uint16(7)
        wide |= sign
        # The exponent has one bit less, and so a bias of 7 rather than 15.
        out.copy_(torch.from_numpy(wide.view(np.int16)).view(torch.float16)).mul_(256.0)
