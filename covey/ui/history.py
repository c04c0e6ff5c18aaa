"""The curves of a run: its rounds' points, read a slice at a time, and thinned to what a picture can show."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from covey.client.values import Round, Run
from covey.ui.source import Source

Axis = Literal["rounds", "seconds", "bytes"]
PAGE = 500
"""Rounds that are read at a time."""
SLICE_S = 0.25
"""So long one request reads on in a long record; the next one goes on from there."""
RECENT = 64
"""Rounds behind the newest that are read again while the run goes on: a version may be evaluated later."""
KEPT = 8
"""Runs whose points are kept."""
SETTLED = ("committed", "failed", "decided")


class Point(NamedTuple):
    """Of one round."""

    at: float | None
    """When it was committed, in Unix seconds."""
    bytes: int
    """That it took, in both directions."""
    metrics: dict[str, float]


class History:
    """The points of one run's rounds, by number. Used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.points: dict[int, Point] = {}
        self.is_whole = False
        """Whether it has been read to its end once."""
        self._open: set[int] = set()
        self._last_look = False

    @property
    def newest(self) -> int:
        """The number of the last round that was read."""
        return next(reversed(self.points), 0)

    def add(self, rounds: Iterable[Round]) -> None:
        """Take rounds in; those that are there already in their place."""
        for item in rounds:
            values = {name: float(value) for name, value in item.metrics.items() if _is_number(value)}
            self.points[item.round] = Point(item.committed_at, item.bytes_received + item.bytes_sent, values)
            (self._open.discard if item.state in SETTLED else self._open.add)(item.round)

    def read_on(self, read: Callable[[int, int], Sequence[Round]], *, ended: bool, until: float) -> None:
        """Read what is new, at most until a moment of `time.monotonic`.

        Args:
            read: Gives rounds after a number, so many at most, in order.
            ended: Whether the run has: then it is looked at once more, and never again.
            until: When to stop; the first page is read in any case.
        """
        if self.is_whole and ended and self._last_look:
            return
        after = self._seen_again() if self.is_whole else self.newest
        while True:
            page = read(after, PAGE)
            self.add(page)
            if len(page) < PAGE:
                self.is_whole, self._last_look = True, ended
                return
            after = page[-1].round
            if time.monotonic() >= until:
                return

    def _seen_again(self) -> int:
        """After which round to read where all were read once: those that are open, and the newest; a page at most."""
        first = min(self._open, default=self.newest)
        return max(0, self.newest - PAGE + 1, min(first - 1, self.newest - RECENT))

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
        carried = list(accumulate(point.bytes for point in self.points.values()))
        xs, ys = list[float](), list[float]()
        for (number, point), whole in zip(self.points.items(), carried, strict=True):
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


class Histories:
    """The histories of the runs that were looked at last.

    Args:
        source: Where they are read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, History] = OrderedDict()

    def of(self, run: Run) -> History:
        """A run's, read on for a moment; it may not be whole yet."""
        history = self._history(run.run)
        with history.lock:
            history.read_on(
                lambda after, limit: self._source.ask(lambda c: c.rounds(run.run, after=after, limit=limit)),
                ended=run.ended,
                until=time.monotonic() + SLICE_S,
            )
        return history

    def _history(self, run: str) -> History:
        with self._lock:
            history = self._kept.pop(run, None) or History()
            self._kept[run] = history
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return history


def charts(history: History, run: Run, over: Axis, wanted: Sequence[str], most: int) -> dict[str, Any]:
    """Curves of a run for the page: those that are wanted, by default accuracy, loss and bytes.

    Args:
        history: Its points.
        run: It.
        over: What is along.
        wanted: Names of metrics, or `bytes`.
        most: Points of a curve.
    """
    with history.lock:
        names = history.names()
        usual = [name for name in names if name.rpartition("/")[2] in ("accuracy", "loss")] or names[:2]
        shown = [name for name in wanted if name in (*names, "bytes")] or [*usual, "bytes"]
        drawn = []
        for name in shown:
            xs, ys = history.curve(name, over, run.started_at or 0.0, most)
            drawn.append({"name": name, "series": [{"label": run.name, "x": xs, "y": ys}]})
        return {"names": [*names, "bytes"], "charts": drawn, "read": history.newest, "is_whole": history.is_whole}
