"""No codec: the vector's own bytes, raw little-endian float32. Nothing is lost, nor copied to read them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.errors import LayoutError, LimitExceeded
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, TensorVector, Vector, spans

_BYTES = 4


class NoCodec(Codec):
    """Raw little-endian float32, 4 bytes an element, lossless for float32 blocks (others are cast)."""

    lossless = True

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly 4 bytes an element."""
        return _BYTES * d

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The source's own memory where it is contiguous, else that of a copy."""
        for columns in spans(source.d, BLOCK_ELEMENTS):
            yield np.ascontiguousarray(source.read(columns).detach().numpy(), dtype="<f4").data.cast("B")

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """A view of the bytes; see `Codec.reader`.

        Raises:
            LimitExceeded: More than `4 * d` bytes.
            LayoutError: Fewer.
        """
        size = buffer.nbytes if isinstance(buffer, Tensor) else memoryview(buffer).nbytes
        if size > _BYTES * d:
            raise LimitExceeded(f"{size} bytes for {d} float32 elements, which take {_BYTES * d}")
        if size < _BYTES * d:
            raise LayoutError(f"{size} bytes are too few for {d} float32 elements, which take {_BYTES * d}")
        return TensorVector(_as_float32(buffer))


def _as_float32(buffer: Buffer | Tensor) -> Tensor:
    if isinstance(buffer, Tensor):
        return buffer.reshape(-1).view(torch.float32)
    if memoryview(buffer).nbytes == 0:
        return torch.empty(0)
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns of a read-only buffer; a reader never writes.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(buffer, dtype=torch.float32)
