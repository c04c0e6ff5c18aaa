"""The curves of the runs that were looked at: read a slice at a time, and thinned to what a picture can show."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from covey.client.connection import Connection
from covey.client.progress.history import Axis, History
from covey.client.values import Round, Run
from covey.ui.source import Source

SLICE_S = 0.2
"""So long one request reads on in a long record; the next one goes on from there."""
MOST_CURVES = 12
KEPT = 8
"""Runs whose points are kept."""


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
                lambda *which: self._source.ask(lambda c: _rounds(c, run.run, *which)),
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


def _rounds(connection: Connection, run: str, after: int, limit: int, newest: bool) -> Sequence[Round]:
    return connection.rounds(run, after=after, limit=limit, newest=newest)


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
        if not history.is_whole:  # what is missing in between is no number of bytes
            shown, over = [name for name in shown if name != "bytes"], "rounds" if over == "bytes" else over
        drawn = []
        for name in shown[:MOST_CURVES]:
            xs, ys = history.curve(name, over, run.started_at or 0.0, most)
            drawn.append({"name": name, "series": [{"label": run.full_name, "x": xs, "y": ys}]})
        return {
            "names": [*names, "bytes"],
            "charts": drawn,
            "over": over,
            "read": history.known,
            "of": history.newest,
            "is_whole": history.is_whole,
        }
