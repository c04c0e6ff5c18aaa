"""The curves of a run: its rounds' points, read a slice at a time, and thinned to what a picture can show."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from covey.client.values import Round

Axis = Literal["rounds", "seconds", "bytes"]
PAGE = 500
"""Rounds that are read at a time."""
RECENT = 64
"""Rounds behind the newest that are read again while the run goes on: a version may be evaluated later."""
Read = Callable[[int, int, bool], Sequence[Round]]
"""Rounds after a number, so many at most, the first or the newest of them; in order."""
SETTLED = ("committed", "failed", "decided")


class Point(NamedTuple):
    """Of one round."""

    at: float | None
    """When it was committed, in Unix seconds."""
    bytes: int
    """That it took, in both directions."""
    received: int
    """Of these, updates that came in."""
    metrics: dict[str, float]


class History:
    """The points of one run's rounds, by number. Used by one thread at a time.

    A long record is read page by page, each in the middle of the widest gap: the whole course is seen early.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.points: dict[int, Point] = {}
        self.newest = 0
        """The number of the last round that is known."""
        self._pages: list[int] | None = None
        """After which rounds pages are still to be read for the first time, the next one at the end; None: of all."""
        self._open: set[int] = set()
        self._has_ended = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read once, as far as is known."""
        return self._pages == []

    def add(self, rounds: Iterable[Round]) -> None:
        """Take rounds in; those that are there already in their place."""
        for item in rounds:
            values = {name: float(value) for name, value in item.metrics.items() if _is_number(value)}
            moved = item.bytes_received + item.bytes_sent
            self.points[item.round] = Point(item.committed_at, moved, item.bytes_received, values)
            self.newest = max(self.newest, item.round)
            (self._open.discard if item.state in SETTLED else self._open.add)(item.round)

    def read_on(self, read: Read, *, ended: bool, until: float) -> None:
        """Read what is new, at most until a moment of `time.monotonic`.

        Args:
            read: Gives rounds.
            ended: Whether the run has: then it is looked at once more, and never again.
            until: When to stop; a page or two are read in any case.
        """
        if self._pages is None:
            self.add(read(0, 1, True))
            self._pages = [page * PAGE for page in reversed(widest_first(-(-self.newest // PAGE)))]
        while self._pages:
            self.add(read(self._pages.pop(), PAGE, False))
            if self._pages and time.monotonic() >= until:
                return
        if not self._has_ended:
            rest = self._follow(read, until)
            self._pages = [] if rest is None else [rest]
            self._has_ended = ended and rest is None

    def _follow(self, read: Read, until: float) -> int | None:
        """Read again what may have changed (open rounds, and the newest, a page at most), and what is new.

        Returns:
            After which round there may be more, where time was up; None: all of it was read.
        """
        first = min(self._open, default=self.newest)
        after = max(0, self.newest - PAGE + 1, min(first - 1, self.newest - RECENT))
        while True:
            page = read(after, PAGE, False)
            self.add(page)
            if len(page) < PAGE:
                return None
            after = page[-1].round
            if time.monotonic() >= until:
                return after

    def names(self) -> list[str]:
        """Of all metrics, those that people look for first at the front."""
        known = {name for point in self.points.values() for name in point.metrics}
        return sorted(known, key=lambda name: (name.rpartition("/")[2] not in ("accuracy", "loss"), name))

    def curve(self, name: str, over: Axis, began: float, most: int) -> tuple[list[float], list[float]]:
        """A metric, or `bytes` in all, as at most `most` points.

        Args:
            name: Which.
            over: What is along: the round's number, seconds since the run began, or bytes in all until then.
            began: When the run did, in Unix seconds.
            most: Points.
        """
        points = sorted(self.points.items())
        carried = accumulate(point.bytes for _, point in points)
        xs, ys = list[float](), list[float]()
        for (number, point), whole in zip(points, carried, strict=True):
            y = float(whole) if name == "bytes" else point.metrics.get(name)
            x = {"rounds": float(number), "seconds": (point.at or math.nan) - began, "bytes": float(whole)}[over]
            if y is not None and not math.isnan(x):
                xs.append(x)
                ys.append(y)
        return thinned(xs, ys, most)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thinned(xs: Sequence[float], ys: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """At most `most` points of a curve: the lowest and the highest of each stretch, so that no spike is hidden."""
    if len(xs) <= most:
        return list(xs), list(ys)
    stretches, kept = max(1, (most - 2) // 2), {0, len(xs) - 1}
    for stretch in range(stretches):
        places = range(stretch * len(xs) // stretches, (stretch + 1) * len(xs) // stretches)
        kept |= {min(places, key=ys.__getitem__), max(places, key=ys.__getitem__)}
    return [xs[place] for place in sorted(kept)], [ys[place] for place in sorted(kept)]


def widest_first(count: int) -> list[int]:
    """The numbers below `count`: the last, the first, and then in the middle of gaps (van der Corput's order)."""
    bits = max(1, (count - 1).bit_length())
    places = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [*range(max(0, count - 1), count), *(place for place in places if place < count - 1)]
