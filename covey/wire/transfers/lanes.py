"""A file over several connections at once: which chunks each one carries, and how many connections a link is worth.

What one connection has under way is bounded, by `covey.wire.channels.WINDOW_BYTES` of gRPC's flow control and by the
kernel's buffers of its socket. Over a long way that bounds its rate too: to so much a round trip. More connections
carry more, and the bound of each, which is what a hostile peer can make the other side hold, stays as it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from covey.artifact import CHUNK_BYTES
from covey.errors import TransferError

MAX_LANES = 4
"""Connections of one transfer. Two transfers run at once in each direction: with windows of 8 MiB these are 64 MiB."""
LANE_BYTES = 4 << 20
"""What one connection surely has under way: Linux gives a socket's sender so much by default (`tcp_wmem`)."""
LEAST_BYTES = 32 << 20
"""Smaller files go over one connection."""
LEAST_ROUND_TRIP_S = 0.01
"""Over a shorter way one connection carries 800 MB/s, which no transfer of Covey's reaches."""
REMEMBERED = 8


@dataclass(frozen=True)
class Lane:
    """One of the connections of a transfer: it carries every `count`-th chunk, from the `index`-th on.

    Attributes:
        index: From 0.
        count: How many there are.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def checked(cls, index: int, count: int) -> Lane:
        """A lane as a peer asks for it; a count of 0 stands for 1.

        Raises:
            TransferError: There is no such lane.
        """
        count = count or 1
        if not (0 <= index < count <= MAX_LANES):
            raise TransferError(f"there is no connection {index} of {count}: at most {MAX_LANES} carry one file")
        return cls(index, count)

    @classmethod
    def parse(cls, text: str) -> Lane:
        """From `INDEX/COUNT`; errors as in `checked`."""
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise TransferError("covey-lane must be INDEX/COUNT")
        if len(text) > 9:
            raise TransferError(f"at most {MAX_LANES} connections carry one file")
        return cls.checked(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def starts(self, offset: int, size_bytes: int) -> range:
        """Where its chunks begin, of a file that is sent from `offset` on."""
        return range(offset + self.index * CHUNK_BYTES, size_bytes, self.count * CHUNK_BYTES)


async def woven(lanes: Sequence[AsyncIterator[memoryview]]) -> AsyncIterator[memoryview]:
    """The chunks of all lanes in the order of the file: one of each in turn, until one has ended.

    A lane that is faster than the others waits, with what its window holds.
    """
    while True:
        for lane in lanes:
            try:
                yield await anext(lane)
            except StopAsyncIteration:
                return


class Pace:
    """How many connections the next file is worth in one direction, by the rate of the last one and the round trip.

    They are to have twice the product of both under way (the rate may have been that of too few). Until there was a
    file it is one. Pure: times are given.
    """

    def __init__(self) -> None:
        self._bytes_per_s = 0.0
        self._round_trips_s: deque[float] = deque(maxlen=REMEMBERED)

    def answered(self, seconds: float) -> None:
        """An empty question was answered after so long. 0: it was not. The shortest of the last 8 counts."""
        if seconds > 0:
            self._round_trips_s.append(seconds)

    def passed(self, size_bytes: int, seconds: float) -> None:
        """A file, or what was missing of one, has passed in so long."""
        if size_bytes >= LEAST_BYTES and seconds > 0:
            self._bytes_per_s = size_bytes / seconds

    def lanes(self, most: int) -> int:
        """How many connections are worth while, at most `most`."""
        round_trip_s = min(self._round_trips_s, default=0.0)
        if round_trip_s < LEAST_ROUND_TRIP_S:
            return 1
        under_way_bytes = 2 * self._bytes_per_s * round_trip_s
        return max(1, min(most, MAX_LANES, math.ceil(under_way_bytes / LANE_BYTES)))
