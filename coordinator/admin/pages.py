"""Pages that fit into a message, however large their entries are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
MAX_PAGE_BYTES = 1 << 20
"""Of a page; gRPC takes messages of up to 4 MiB. A single entry may be larger."""
MAX_PAGE = 1000
"""Entries of a page, where the caller names no limit or a larger one."""


def page_size(limit: int, default: int = MAX_PAGE) -> int:
    """How many entries a page may have; `limit` 0: the default."""
    return min(limit or default, MAX_PAGE)


def fitting(messages: Iterable[M], limit: int) -> tuple[list[M], bool]:
    """The first `limit` messages, or fewer where they are large; and whether there are more.

    Args:
        messages: Made as they are needed: one more than `limit`, where there are more.
        limit: At least 1.
    """
    kept: list[M] = []
    size_bytes = 0
    for message in messages:
        size_bytes += message.ByteSize()
        if len(kept) == limit or (kept and size_bytes > MAX_PAGE_BYTES):
            return kept, True
        kept.append(message)
    return kept, False
