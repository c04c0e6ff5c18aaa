"""Token buckets: how often strangers may try to enrol, and how fast a node's messages are read."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from covey.errors import LimitExceeded

MAX_ADDRESSES = 4096
IPV6_SITE_BITS = 64
"""Whoever has one IPv6 address has this whole network of them."""


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

    def take(self, now: float) -> float:
        """Take one, whether it is there or not; how many seconds it has to be waited for."""
        self.level = self.refill(now) - 1
        return max(0.0, -self.level / self.per_second)


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
        self._each, self._clock = each, clock
        self._total = Bucket(*total, level=total[0], at=clock())
        self._buckets: dict[str, Bucket] = {}

    def admit(self, address: str) -> None:
        """Count one try.

        Raises:
            LimitExceeded: Too many; nothing was counted.
        """
        now, bucket = self._clock(), self._bucket(address)
        if bucket.refill(now) < 1 or self._total.refill(now) < 1:
            raise LimitExceeded("too many attempts; try again in a minute")
        bucket.level -= 1
        self._total.level -= 1

    def forgive(self, address: str) -> None:
        """Give one try back: it was a good one."""
        for bucket in (self._bucket(address), self._total):
            bucket.level = min(bucket.capacity, bucket.level + 1)

    def _bucket(self, address: str) -> Bucket:
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            bucket = Bucket(*self._each, level=self._each[0], at=self._clock())
        self._buckets[address] = bucket  # the longest unused one comes first
        if len(self._buckets) > MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        return bucket


def site_of(peer: str) -> str:
    """What counts as one address of gRPC's name for a peer (`ipv4:HOST:PORT`, `ipv6:%5BHOST%5D:PORT`)."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    try:
        address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
    return str(address)
