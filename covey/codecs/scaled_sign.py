"""`scaled-sign`: the sign of each element times its tensor's mean magnitude, with error feedback.

Karimireddy, Rebjock, Stich and Jaggi, "Error feedback fixes SignSGD" (ICML 2019, arXiv 1901.09847) and its authors'
code: C(p) = (||p||_1 / d) sign(p), for each tensor by itself. Format: a little-endian float32 mean magnitude for each
tensor, then the packed signs (`covey.vectors.signs`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from covey.codecs.buffers import as_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.segments import Numbers, Segments, mean_magnitudes
from covey.errors import LayoutError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, Vector, spans
from covey.vectors.signs import PackedSigns, packed, packed_bytes

_SCALE_BYTES = 4


class ScaledSign(Codec):
    """(||p||_1 / d) sign(p) for each tensor; without a layout the vector is one tensor.

    What is lost of a tensor has exactly the share 1 - ||p||_1^2 / (d ||p||_2^2) of its squared norm: 1 - 2/pi for
    Gaussian values. It is kept and sent with the next vector unless the run says otherwise. sign(0) is +1.
    """

    feedback = True

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly 4 bytes a tensor and `ceil(d / 8)`."""
        return _SCALE_BYTES * Segments(d, layout).count + packed_bytes(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The scales, then the signs; reads the source twice.

        Raises:
            TaskError: A value is not finite.
        """
        scales = mean_magnitudes(source, Segments(source.d, context.layout))
        yield memoryview(scales.astype("<f4").tobytes())
        for columns in spans(source.d, BLOCK_ELEMENTS):
            yield packed(source.read(columns) >= 0)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `encoded_bytes(d, layout)`.
            LayoutError: Fewer; a scale that is negative or not finite; a set bit behind the last element; a layout
                of another size.
        """
        segments = Segments(d, layout)
        data = as_bytes(buffer, self.encoded_bytes(d, layout), f"{segments.count} scales and the signs of {d} elements")
        header = _SCALE_BYTES * segments.count
        return _Scaled(data[header:], d, magnitudes(data[:header]), segments)


def magnitudes(header: Tensor) -> Numbers:
    """Numbers at the head of an encoded vector: float32 from uint8 `[4 k]`.

    Raises:
        LayoutError: One is negative or not finite.
    """
    scale = np.frombuffer(header.numpy().tobytes(), "<f4")
    if not np.all(np.isfinite(scale) & ~np.signbit(scale)):
        raise LayoutError("a tensor's magnitude is negative or not finite")
    return scale


class _Scaled(PackedSigns):
    def __init__(self, bits: Tensor, d: int, scales: Numbers, segments: Segments) -> None:
        super().__init__(bits, d)
        self._scales, self._segments = scales, segments

    def decode(self, columns: slice, out: Tensor) -> None:
        super().decode(columns, out)
        for index, piece in self._segments.pieces(columns):
            out[piece] *= float(self._scales[index])
