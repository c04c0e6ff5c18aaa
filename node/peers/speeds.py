"""How fast bodies go to each peer. Pure."""

from __future__ import annotations

NEW_PART = 0.3
"""Of a measured rate in the mean."""
LEAST_BYTES = 1 << 20
"""Smaller bodies say more of the round trip than of the rate."""


class Speeds:
    """The mean rate of whole transfers, by peer."""

    def __init__(self) -> None:
        self._bytes_per_s: dict[str, float] = {}

    def sent(self, peer: str, size_bytes: int, seconds: float) -> None:
        """A body went over."""
        if size_bytes < LEAST_BYTES or seconds <= 0:
            return
        measured, before = size_bytes / seconds, self._bytes_per_s.get(peer)
        self._bytes_per_s[peer] = measured if before is None else before + NEW_PART * (measured - before)

    def known(self) -> list[tuple[str, float]]:
        """Peer and bytes a second, where any were measured."""
        return sorted(self._bytes_per_s.items())
