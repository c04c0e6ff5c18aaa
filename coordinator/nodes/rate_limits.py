"""How often strangers may try to enrol."""

from __future__ import annotations

import time
from collections.abc import Callable

from covey.errors import LimitExceeded
from covey.wire.listeners.buckets import Bucket, Buckets

MAX_ADDRESSES = 4096


class RateLimits:
    """Bounds the tries of each address and of all together. Memory is bounded, too."""

    def __init__(
        self,
        *,
        each: tuple[float, float] = (20, 1.0),
        total: tuple[float, float] = (200, 20.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make limits.

        Args:
            each: For one address: how many at once, and how many a second after that.
            total: The same for all addresses together.
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._total = Bucket(*total, level=total[0], at=clock())
        self._buckets = Buckets(*each, most=MAX_ADDRESSES)

    def admit(self, address: str) -> None:
        """Count one try.

        Raises:
            LimitExceeded: Too many; nothing was counted.
        """
        now = self._clock()
        bucket = self._buckets.of(address, now)
        if bucket.refill(now) < 1 or self._total.refill(now) < 1:
            raise LimitExceeded("too many attempts; try again in a minute")
        bucket.level -= 1
        self._total.level -= 1

    def forgive(self, address: str) -> None:
        """Give one try back: it was a good one."""
        for bucket in (self._buckets.of(address, self._clock()), self._total):
            bucket.level = min(bucket.capacity, bucket.level + 1)
