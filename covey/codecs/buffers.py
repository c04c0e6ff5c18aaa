"""Encoded vectors as bytes, wherever they lie: what a peer has sent is looked at where it is, never copied."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from covey.codecs.contract import Buffer
from covey.errors import LayoutError, LimitExceeded


def as_bytes(buffer: Buffer | Tensor, size: int, what: str) -> Tensor:
    """An encoded vector as uint8 `[size]`, without copying it.

    Args:
        buffer: What a peer has sent; read-only memory too.
        size: How many bytes it must have.
        what: Names it in the error's message.

    Raises:
        LimitExceeded: It has more bytes.
        LayoutError: It has fewer.
    """
    data = at_most_bytes(buffer, size, what)
    if len(data) < size:
        raise LayoutError(f"{len(data)} bytes are too few for {what}, which takes {size}")
    return data


def at_most_bytes(buffer: Buffer | Tensor, size: int, what: str) -> Tensor:
    """An encoded vector as uint8 `[b]`, without copying it; as `as_bytes`, but `size` is the most that it may have.

    Raises:
        LimitExceeded: It has more bytes.
    """
    given = buffer.nbytes if isinstance(buffer, Tensor) else memoryview(buffer).nbytes
    if given > size:
        raise LimitExceeded(f"{given} bytes for {what}, which takes {size}")
    if isinstance(buffer, Tensor):
        return buffer.reshape(-1).view(torch.uint8)
    if not given:
        return torch.empty(0, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns of a read-only buffer; a reader never writes.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(buffer, dtype=torch.uint8)
