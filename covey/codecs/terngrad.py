"""TernGrad: every element becomes -m, 0 or m, so that the expectation is the vector itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from covey.codecs import trits
from covey.codecs.blocked import as_bytes, require_finite_values, require_size
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.packing import Bytes, pack, packed_bytes, padding_is_zero, unpack
from covey.codecs.random_streams import SEGMENT, uniforms
from covey.codecs.segments import Segments
from covey.errors import LayoutError
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import ComputedVector, Vector, spans

_BITS = 2
_SCALE = np.dtype("<f4")


class TernGradOptions(PluginOptions):
    """Options of `terngrad`."""

    clip: float | None = Field(None, gt=0)
    """Cut each tensor's elements to this many of its standard deviations first: less noise, but then biased. The
    paper's experiments use 2.5."""
    packing: Literal["bits", "trits"] = "bits"
    """2 bits an element, or five elements a byte: 1.6."""


class TernGrad(Codec):
    """x -> m sign(x) Bernoulli(|x| / m), with m = max|x| of each tensor: E = x, E||error||^2 = m ||x||_1 - ||x||_2^2.

    Wen et al., "TernGrad", NeurIPS 2017, arXiv 1705.07878, with its gradient clipping. Deviation: each node has its own
    m; the paper's scaler sharing takes the largest over all nodes. Without a layout the whole vector is one tensor.
    """

    stochastic = True
    contracts = False
    Options = TernGradOptions
    options: TernGradOptions

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly: 4 bytes a tensor, and 2 bits or 1.6 an element."""
        codes = packed_bytes(d, _BITS) if self.options.packing == "bits" else trits.packed_bytes(d)
        return _SCALE.itemsize * Segments(d, layout).count + codes

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`; the source is read twice.

        Raises:
            TaskError: A value is not finite.
        """
        tensors = Segments(source.d, context.layout)
        scales = self._scales(source, tensors)
        yield np.array(scales, _SCALE).data.cast("B")
        codes = self._codes(source, scales, tensors, context.seed)
        yield from trits.packed(codes) if self.options.packing == "trits" else _packed(codes)

    def _codes(self, source: Vector, scales: list[float], tensors: Segments, seed: int) -> Iterator[Bytes]:
        """0, 1 and 2 for -m, 0 and m: uint8, a segment at a time."""
        scratch = torch.empty(min(SEGMENT, source.d))
        for columns in spans(source.d, SEGMENT):
            work = scratch[: columns.stop - columns.start]
            work.copy_(source.read(columns).detach())
            for index, part in tensors.pieces(columns):
                if scales[index]:
                    # Clipped, or divided by what rounds to a little less than the largest, a part may be above 1.
                    work[part].div_(scales[index]).clamp_(-1.0, 1.0)
            yield work.add_(uniforms(seed, columns)).floor_().clamp_(max=1.0).add_(1.0).numpy().astype(np.uint8)

    def _scales(self, source: Vector, tensors: Segments) -> list[float]:
        """The scale m of each tensor: a float32."""
        largest, sums, squares = ([0.0] * tensors.count for _ in range(3))
        sizes = [0] * tensors.count
        for columns in spans(source.d, SEGMENT):
            values = require_finite_values(source.read(columns).detach())
            for index, part in tensors.pieces(columns):
                largest[index] = max(largest[index], float(values[part].abs().max()))
                sizes[index] += part.stop - part.start
                if self.options.clip is not None:
                    wide = values[part].double()
                    sums[index] += float(wide.sum())
                    squares[index] += float(wide.square().sum())
        if self.options.clip is None:
            return largest
        deviations = map(_deviation, sums, squares, sizes)
        return [float(np.float32(min(m, self.options.clip * s))) for m, s in zip(largest, deviations, strict=True)]

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: Too many bytes.
            LayoutError: Too few; a negative or non-finite scale, a code without meaning, or padding that is not zero.
        """
        data = as_bytes(buffer)
        require_size(len(data), self.encoded_bytes(d, layout), d, "terngrad")
        reader = TernaryReader if self.options.packing == "bits" else TritReader
        return reader(data, d, Segments(d, layout))


def _packed(codes: Iterator[Bytes]) -> Iterator[memoryview]:
    """2 bits a code; each piece but the last has whole bytes of them."""
    for part in codes:
        out = np.empty(packed_bytes(len(part), _BITS), np.uint8)
        pack(part, _BITS, out)
        yield out.data


def _deviation(total: float, squares: float, count: int) -> float:
    """The standard deviation (of all, not of a sample) from sums."""
    if not count:
        return 0.0
    return float(max(squares / count - (total / count) ** 2, 0.0) ** 0.5)


class TernaryReader(ComputedVector):
    """Random access to ternary elements.

    Args:
        data: Of the right size: a float32 for each tensor, then 2 bits an element.
        d: Number of elements.
        tensors: What the vector is made of.

    Raises:
        LayoutError: A negative or non-finite scale, a code without meaning, or padding that is not zero.
    """

    def __init__(self, data: Bytes, d: int, tensors: Segments) -> None:
        super().__init__(d)
        head = _SCALE.itemsize * tensors.count
        self._tensors, self._scales, self._packed = tensors, data[:head].view(_SCALE).tolist(), data[head:]
        # Seen as integers: the sign bit, infinity and NaN are all at least the bits of infinity.
        if head and int(data[:head].view("<u4").max()) >= 0x7F800000:
            raise LayoutError("terngrad: a scale is negative or not finite")
        self._check(d)

    def _check(self, d: int) -> None:
        if not padding_is_zero(self._packed, d, _BITS):
            raise LayoutError("terngrad: the bits behind the last code are not zero")
        for columns in spans(len(self._packed), SEGMENT):
            packed = self._packed[columns]
            if ((packed & (packed >> 1)) & np.uint8(0x55)).any():
                raise LayoutError("terngrad: a code has no meaning")

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` into `out`."""
        for part in spans(columns.stop - columns.start, SEGMENT):
            self._decode(slice(columns.start + part.start, columns.start + part.stop), out[part])

    def _decode(self, columns: slice, out: Tensor) -> None:
        out.copy_(torch.from_numpy(self._codes(columns))).sub_(1.0)
        for index, part in self._tensors.pieces(columns):
            out[part].mul_(self._scales[index])

    def _codes(self, columns: slice) -> Bytes:
        first = columns.start // 4 * 4
        packed = self._packed[first // 4 : packed_bytes(columns.stop, _BITS)]
        return unpack(packed, columns.stop - first, _BITS)[columns.start - first :].view(np.uint8)


class TritReader(TernaryReader):
    """Reads codes that are five a byte."""

    def _check(self, d: int) -> None:
        trits.check(self._packed, d, "terngrad")

    def _codes(self, columns: slice) -> Bytes:
        return trits.unpacked(self._packed, columns)
