"""The curves of a run: its rounds' points, read a slice at a time, bounded, and thinned to what a picture can show."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, groupby
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
MOST_POINTS, EXACT = 8_000, 1_500
"""Points that are kept, about; the newest so many are never thinned (changes begin with the newest 1,000)."""
MOST_EXTREMES = 50
"""Metrics whose extremes are kept; of more those that people look for first."""


class Point(NamedTuple):
    """Of one round."""

    at: float | None
    """When it was committed, in Unix seconds."""
    bytes: int
    """That it took, in both directions."""
    received: int
    """Of these, updates that came in; 0 before it is committed."""
    metrics: dict[str, float]
    left_out: tuple[int, int] = (0, 0)
    """`bytes` and `received` of the rounds before it whose points are kept no more."""


class History:
    """The points of one run's rounds, by number. Used by one thread at a time.

    A long record is read page by page, each in the middle of the widest gap: the whole course is seen early. Of very
    many rounds the older ones are thinned out: of each stretch the last one stays, and those with the lowest and the
    highest value of each metric. Sums of bytes stay exact.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.points: dict[int, Point] = {}
        self.newest = 0
        """The number of the last round that is known."""
        self._through = 0
        """All rounds until this one are known, or will be once the pages are read."""
        self._thinned = self._left_out = 0
        """Points until this number may be thinned out; how many were."""
        self._pages: list[int] | None = None
        """After which rounds pages are still to be read for the first time, the next one at the end; None: of all."""
        self._open: set[int] = set()
        self._has_ended = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it is known, as far as is known."""
        return not self._pages and self._through >= self.newest

    @property
    def known(self) -> int:
        """How many rounds are, those that were thinned out included."""
        return len(self.points) + self._left_out

    @property
    def received(self) -> int:
        """Bytes of updates that came in, of rounds that are committed."""
        return sum(point.received + point.left_out[1] for point in self.points.values())

    def add(self, rounds: Iterable[Round]) -> None:
        """Take rounds in; those that are there already in their place."""
        self._take(item for item in rounds if item.round > self._thinned or item.round in self.points)

    def _take(self, rounds: Iterable[Round]) -> None:
        for item in rounds:
            values = {name: number for name, value in item.metrics.items() if (number := number_of(value)) is not None}
            moved = item.bytes_received + item.bytes_sent
            received = item.bytes_received if item.committed_at is not None else 0
            before = self.points[item.round].left_out if item.round in self.points else (0, 0)
            self.points[item.round] = Point(item.committed_at, moved, received, values, before)
            self.newest = max(self.newest, item.round)
            (self._open.discard if item.state in SETTLED else self._open.add)(item.round)
        while self._through + 1 in self.points:
            self._through += 1
        if len(self.points) > MOST_POINTS:
            self._thin()

    def _thin(self) -> None:
        """Thin out all but the newest and those that are open, evenly along the run."""
        names = self.names()[:MOST_EXTREMES]
        self._thinned = max(self._thinned, self._through - EXACT)
        width = max(1, self._thinned * 2 * (2 * len(names) + 1) // MOST_POINTS)
        old = sorted(number for number in self.points if number <= self._thinned and number not in self._open)
        for _, stretch in groupby(old, lambda number: (number - 1) // width):
            self._thin_stretch(list(stretch), names)

    def _thin_stretch(self, numbers: list[int], names: Sequence[str]) -> None:
        last, points = numbers[-1], self.points
        kept = {last}
        for name in names:
            having = [number for number in numbers if name in points[number].metrics]
            if having:
                values = {number: points[number].metrics[name] for number in having}
                kept |= {min(having, key=values.__getitem__), max(having, key=values.__getitem__)}
        moved, received = points[last].left_out
        for number in set(numbers) - kept:
            point = points.pop(number)
            moved, received = moved + point.bytes + point.left_out[0], received + point.received + point.left_out[1]
            self._left_out += 1
        points[last] = points[last]._replace(left_out=(moved, received))

    def read_on(self, read: Read, *, ended: bool, until: float) -> bool:
        """Read what is new, at most until a moment of `time.monotonic`.

        Args:
            read: Gives rounds.
            ended: Whether the run has: then it is looked at once more, and never again.
            until: When to stop; a page or two are read in any case.

        Returns:
            Whether time was up, and there may be more.
        """
        if self._pages is None:
            newest = read(0, 1, True)
            # What changes told comes again with the pages: it would count twice where it was thinned out meanwhile.
            self.points, self._open, self._left_out = {}, set(), 0
            self.add(newest)
            self._through = self.newest
            self._pages = [page * PAGE for page in reversed(widest_first(-(-self.newest // PAGE)))]
        while self._pages:
            after = self._pages[-1]
            page = read(after, PAGE, False)
            self._pages.pop()  # now that it is there
            self._take(item for item in page if item.round <= after + PAGE)
            if self._pages and time.monotonic() >= until:
                return True
        if not self._has_ended:
            rest = self._follow(read, until)
            self._pages = [] if rest is None else [rest]
            self._has_ended = ended and rest is None
        return bool(self._pages)

    def _follow(self, read: Read, until: float) -> int | None:
        """Read again what may have changed (open rounds, and the newest, a page at most), and what is new.

        Returns:
            After which round there may be more, where time was up; None: all of it was read.
        """
        first = min(self._open, default=self._through)
        after = max(0, self._through - PAGE + 1, min(first - 1, self._through - RECENT))
        while True:
            page = read(after, PAGE, False)
            self.add(page)
            self._through = max(self._through, page[-1].round if page else 0)
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
        carried = accumulate(point.bytes + point.left_out[0] for _, point in points)
        xs, ys = list[float](), list[float]()
        for (number, point), whole in zip(points, carried, strict=True):
            y = float(whole) if name == "bytes" else point.metrics.get(name)
            x = {"rounds": float(number), "seconds": (point.at or math.nan) - began, "bytes": float(whole)}[over]
            if y is not None and not math.isnan(x):
                xs.append(x)
                ys.append(y)
        return thinned(xs, ys, most)


def number_of(value: object) -> float | None:
    """A finite number; None: it is something else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


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
