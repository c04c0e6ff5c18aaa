"""`sign`: one bit an element and one scale, for votes and for the way down of a run that votes.

signSGD with majority vote (Bernstein et al., ICLR 2019, arXiv 1810.05291): a node sends sign(v), the coordinator sends
the sign of the sum. Format: the scale as little-endian float32, then the packed signs (`covey.vectors.signs`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from torch import Tensor

from covey.codecs.buffers import as_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.segments import Segments, maxima
from covey.errors import LayoutError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, Vector, spans
from covey.vectors.signs import PackedSigns, packed, packed_bytes

_SCALE = struct.Struct("<f")


class Sign(Codec):
    """The sign of each element, with the largest magnitude as the scale of all: decodes to +max|x| and -max|x|.

    Exact for a vector whose elements are all +c or -c, as a vote times a learning rate is; a rule that votes reads
    the signs only. sign(0) is +1, of +0 and -0 alike, where the paper leaves it open.
    """

    signs = True
    contracts = False

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly `4 + ceil(d / 8)`."""
        return _SCALE.size + packed_bytes(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The scale, then the signs; reads the source twice.

        Raises:
            TaskError: A value is not finite.
        """
        (scale,) = maxima(source, Segments(source.d))
        yield memoryview(_SCALE.pack(scale))
        for columns in spans(source.d, BLOCK_ELEMENTS):
            yield packed(source.read(columns) >= 0)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `encoded_bytes(d)`.
            LayoutError: Fewer; a scale that is negative or not finite; a set bit behind the last element.
        """
        data = as_bytes(buffer, self.encoded_bytes(d), f"the signs of {d} elements")
        (scale,) = _SCALE.unpack(bytes(data[: _SCALE.size].tolist()))
        if not math.isfinite(scale) or math.copysign(1, scale) < 0:
            raise LayoutError(f"the scale {scale} is not a finite number from 0 on")
        return PackedSigns(data[_SCALE.size :], d, scale)
