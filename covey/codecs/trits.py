"""Codes 0, 1 and 2, five a byte: c0 + 3 c1 + 9 c2 + 27 c3 + 81 c4, the first code lowest; at the end zeros fill up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from covey.codecs.packing import Bytes
from covey.errors import LayoutError
from covey.vectors import BLOCK_ELEMENTS, spans

TRITS = 5
BASE = 3
_POWERS = (BASE ** np.arange(TRITS)).astype(np.uint8)
_TABLE = (np.arange(BASE**TRITS)[:, None] // _POWERS % BASE).astype(np.uint8)
"""The codes of each byte, `[243, 5]`."""


def packed_bytes(count: int) -> int:
    """Size in bytes of `count` codes."""
    return -(-count // TRITS)


def packed(parts: Iterator[Bytes]) -> Iterator[memoryview]:
    """Codes as bytes; parts may be of any length, for the codes of a last byte that is not full wait for the next part.

    Args:
        parts: uint8, each code below 3.
    """
    rest = np.empty(0, np.uint8)
    for part in parts:
        codes = np.concatenate([rest, part])
        whole = len(codes) // TRITS * TRITS
        rest = codes[whole:]
        yield _joined(codes[:whole]).data
    if len(rest):
        yield _joined(np.pad(rest, (0, TRITS - len(rest)))).data


def _joined(codes: Bytes) -> Bytes:
    joined: Bytes = codes.reshape(-1, TRITS) @ _POWERS
    return joined


def unpacked(data: Bytes, columns: slice) -> Bytes:
    """Codes `columns` of checked bytes: uint8 `[b]`."""
    first = columns.start // TRITS
    codes: Bytes = _TABLE[data[first : packed_bytes(columns.stop)]].reshape(-1)
    return codes[columns.start - first * TRITS : columns.stop - first * TRITS]


def check(data: Bytes, count: int, what: str) -> None:
    """Whether bytes hold `count` codes.

    Raises:
        LayoutError: A byte means no five codes, or those behind the last one are not zero.
    """
    for part in spans(len(data), BLOCK_ELEMENTS):
        if int(data[part].max()) >= BASE**TRITS:
            raise LayoutError(f"{what}: a byte has no meaning")
    used = count % TRITS
    if used and int(data[-1]) >= BASE**used:
        raise LayoutError(f"{what}: the codes behind the last one are not zero")
