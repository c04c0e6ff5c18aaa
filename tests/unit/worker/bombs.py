"""What a hostile peer sends in place of an encoded vector of one tensor: of the codec's form, but for one thing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

INFINITE, NOT_A_NUMBER, NEGATIVE, UNEVEN = (struct.pack("<f", x) for x in (float("inf"), float("nan"), -1.0, 3.0))
Bombs = dict[str, bytes]


def bombs(codec: str, options: dict[str, Any], honest: bytes, d: int) -> Bombs:
    """By what is wrong with each.

    Args:
        codec: Its name.
        options: Its options.
        honest: What it makes of a vector without zeros.
        d: The vector's elements.
    """
    made = _OF["coded"] if options.get("indices") == "elias-fano" else _OF[codec]
    return made(honest, d) | {
        "one element more": honest + bytes(8),
        "many times as much": honest * 50,
        "half of it": honest[: len(honest) // 2],
    }


def _half(infinite: bytes, not_a_number: bytes) -> Callable[[bytes, int], Bombs]:
    return lambda honest, _: {
        "an infinite value": infinite + honest[2:],
        "a value that is no number": honest[:-2] + not_a_number,
    }


def _scaled(honest: bytes, _: int) -> Bombs:
    return {
        "an infinite scale": INFINITE + honest[4:],
        "a scale that is no number": NOT_A_NUMBER + honest[4:],
        "a scale below zero": NEGATIVE + honest[4:],
    }


def _levels(honest: bytes, d: int) -> Bombs:
    return _scaled(honest, d) | {"a code without meaning": honest[:-2] + b"\xff\xff"}


def _fp8(honest: bytes, d: int) -> Bombs:
    return _levels(honest, d) | {"a scale that is no power of two": UNEVEN + honest[4:]}


def _signs(honest: bytes, d: int) -> Bombs:
    behind = bytes([honest[-1] | (0xFF << d % 8) & 0xFF])
    return _scaled(honest, d) | {"a sign of an element that there is not": honest[:-1] + behind}


def _pairs(honest: bytes, d: int) -> Bombs:
    first, last = honest[:8], honest[-8:]
    return {
        "an index behind the last element": honest[:-8] + struct.pack("<i", d) + last[4:],
        "an index at the end of memory": honest[:-8] + struct.pack("<i", 2**31 - 1) + last[4:],
        "an index below zero": struct.pack("<i", -1) + honest[4:],
        "an index twice": first + first + honest[16:],
        "indices that fall": last + honest[8:-8] + first,
    } | _values(honest, d)


def _values(honest: bytes, _: int) -> Bombs:
    return {"an infinite value": honest[:-4] + INFINITE, "a value that is no number": honest[:-4] + NOT_A_NUMBER}


def _coded(honest: bytes, _: int) -> Bombs:
    """Of one segment: how many pairs it has, lower bits, a bitmap of upper ones, values."""
    (count,) = struct.unpack("<I", honest[:4])
    counts = {"as many pairs as can be written": 2**32 - 1, "a pair more": count + 1, "a pair less": count - 1}
    return {name: struct.pack("<I", claimed) + honest[4:] for name, claimed in counts.items()} | {
        "indices of nothing": honest[:4] + bytes(len(honest) - 4),
        "every index": honest[:4] + b"\xff" * (len(honest) - 4),
    }


_OF: dict[str, Callable[[bytes, int], Bombs]] = {
    "bf16": _half(b"\x80\x7f", b"\xc0\x7f"),
    "fp16": _half(b"\x00\x7c", b"\x00\x7e"),
    "fp8": _fp8,
    "int8": _levels,
    "int4": _levels,
    "qsgd": _levels,
    "scaled-sign": _signs,
    "top-k": _pairs,
    "random-k": _values,
    "coded": _coded,
}
