"""`sto-sign`: a random sign whose mean is the element over a bound that all nodes share.

Jin, Huang, He, Dai and Wu, "Stochastic-Sign SGD for federated learning with theoretical guarantees" (arXiv 2002.10940);
the formulas from the authors' code. Element g_i becomes +1 with probability 1/2 + g_i / (2 b_i), else -1, so that
E[q_i] = g_i / b_i where b_i >= |g_i|. A vote over nodes with the same b then follows the sum of their gradients, which
plain signs do not where nodes' data differ.

Format: with `bound = "broadcast"` a little-endian float32 for each tensor, the node's own largest magnitude; with a
fixed bound nothing; then the packed signs (`covey.vectors.signs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from covey.codecs.blocked import require_finite_values
from covey.codecs.buffers import as_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.random_streams import uniforms
from covey.codecs.scaled_sign import magnitudes
from covey.codecs.segments import Numbers, Segments, maxima
from covey.codecs.sign import Sign
from covey.errors import LayoutError
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import BLOCK_ELEMENTS, Vector, spans
from covey.vectors.signs import PackedSigns, packed, packed_bytes

LEAST_BOUND = 1e-6
"""No bound is smaller, as in two of the authors' scripts (their newest has 1e-20): it is divided by."""
_FLOAT_BYTES = 4


class StoSign(Codec):
    """Random signs with E[q] = g / b where |g| <= b (a larger element is +1 or -1 for certain).

    Where the authors take b_i = max over the nodes of |g_i| of the same round, which needs every node's gradient
    first, b is here one number a tensor and a round old: each node sends its own largest magnitude along, the
    coordinator broadcasts what `summary` makes of them. In the first round each node uses its own. Decodes to +1 and
    -1; a rule that votes reads the signs only.

    The larger b, the more random each vote, and the fewer attackers a vote stands. So a node that lies high does
    harm; `trim` leaves the largest magnitudes of each tensor out, and f of them are out of a liar's reach.
    """

    class Options(PluginOptions):
        """`[exchange.options]` of `sto-sign`."""

        bound: Annotated[float, Field(gt=0, strict=True)] | Literal["broadcast"] = "broadcast"
        """b: one number for all elements, or `broadcast`: for each tensor, from the last round's magnitudes."""
        trim: int = Field(default=0, ge=0)
        """How many of the largest magnitudes of each tensor `broadcast` drops before it takes the largest; the number
        of Byzantine nodes is a good choice, 0 is the paper's."""

    signs = True
    contracts = False
    stochastic = True
    summarises = True
    options: Options

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly `ceil(d / 8)`, and 4 bytes a tensor with `bound = "broadcast"`."""
        return self._header_bytes(Segments(d, layout)) + packed_bytes(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The magnitudes if they are needed, then the signs; reads the source once for each.

        Raises:
            TaskError: A value is not finite.
            LayoutError: The broadcast is not one of this layout.
        """
        segments = Segments(source.d, context.layout)
        bounds = np.full(segments.count, self.options.bound if self.options.bound != "broadcast" else 0, np.float32)
        if self.options.bound == "broadcast":
            own = maxima(source, segments)
            yield memoryview(own.astype("<f4").tobytes())
            bounds = _broadcast(context.broadcast, segments) if context.broadcast else own
        halves = (0.5 / np.maximum(bounds.astype(np.float64), LEAST_BOUND)).tolist()
        for columns in spans(source.d, BLOCK_ELEMENTS):
            yield packed(uniforms(context.seed, columns) < _likelihood(source, columns, halves, segments))

    def summary(self, readers: Sequence[Vector], context: CodecContext) -> bytes:
        """The bounds of the next round, little-endian float32 for each tensor; empty with a fixed bound.

        The largest of the nodes' magnitudes, but for the `trim` largest (at least one is left).
        """
        magnitudes = [reader.magnitudes for reader in readers if isinstance(reader, _StoSigns)]
        if self.options.bound != "broadcast" or not magnitudes:
            return b""
        ordered = np.sort(np.stack(magnitudes), axis=0)
        bounds: Numbers = ordered[max(len(magnitudes) - 1 - self.options.trim, 0)]
        return np.maximum(bounds, np.float32(LEAST_BOUND)).astype("<f4").tobytes()

    def downlink(self) -> Codec:
        """`sign`: a vote has one bit an element."""
        return Sign()

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `encoded_bytes(d, layout)`.
            LayoutError: Fewer; a magnitude that is negative or not finite; a set bit behind the last element; a
                layout of another size.
        """
        header = self._header_bytes(Segments(d, layout))
        data = as_bytes(buffer, header + packed_bytes(d), f"the random signs of {d} elements")
        return _StoSigns(data[header:], d, magnitudes(data[:header]))

    def _header_bytes(self, segments: Segments) -> int:
        return _FLOAT_BYTES * segments.count if self.options.bound == "broadcast" else 0


class _StoSigns(PackedSigns):
    def __init__(self, bits: Tensor, d: int, magnitudes: Numbers) -> None:
        super().__init__(bits, d)
        self.magnitudes = magnitudes


def _broadcast(data: bytes, segments: Segments) -> Numbers:
    if len(data) != _FLOAT_BYTES * segments.count:
        raise LayoutError(f"the bounds of {segments.count} tensors cannot be {len(data)} bytes")
    return magnitudes(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def _likelihood(source: Vector, columns: slice, halves: list[float], segments: Segments) -> Tensor:
    """The probability of +1, below 0 or above 1 for an element beyond its bound: float32 `[b]`."""
    block = require_finite_values(source.read(columns))
    likelihood = torch.empty_like(block)
    for index, piece in segments.pieces(columns):
        torch.mul(block[piece], halves[index], out=likelihood[piece])
    return likelihood.add_(0.5)
