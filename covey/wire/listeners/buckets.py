"""Token buckets: how often something may be done at once, and how often a second after that. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

MAX_KEYS = 4096


@dataclass
class Bucket:
    """Starts full; every try takes one, and they come back at a steady rate."""

    capacity: float
    per_second: float
    level: float
    at: float

    def refill(self, now: float) -> float:
        """What is in it now."""
        self.level = min(self.capacity, self.level + (now - self.at) * self.per_second)
        self.at = now
        return self.level

    def take(self, now: float, count: float = 1) -> float:
        """Take so many, whether they are there or not; how many seconds they have to be waited for."""
        self.level = self.refill(now) - count
        return max(0.0, -self.level / self.per_second)


class Buckets:
    """A bucket each for many: nodes, addresses. Of those not seen for the longest none is kept, so memory is bounded.

    Args:
        capacity: How many at once.
        per_second: How many a second after that.
        most: Of so many a bucket is kept.
    """

    def __init__(self, capacity: float, per_second: float, most: int = MAX_KEYS) -> None:
        self._capacity, self._per_second, self._most = capacity, per_second, most
        self._buckets: dict[Hashable, Bucket] = {}

    def of(self, key: Hashable, now: float) -> Bucket:
        """Somebody's own."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(self._capacity, self._per_second, level=self._capacity, at=now)
        self._buckets[key] = bucket  # the longest unused one comes first
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def take(self, key: Hashable, now: float) -> bool:
        """Whether it may be done once more; only then it counts."""
        bucket = self.of(key, now)
        if bucket.refill(now) < 1:
            return False
        bucket.level -= 1
        return True
