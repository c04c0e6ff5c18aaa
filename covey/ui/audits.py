"""Audits of runs that the page asked for, kept until the run has changed."""

from __future__ import annotations

import threading
import time
from typing import Any

from covey.client.values import Run
from covey.ui.shapes import plain
from covey.ui.source import Source

KEPT = 32


class Audits:
    """One audit at a time, each over a connection of its own.

    Args:
        source: The federation.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, int], dict[str, Any]] = {}

    def of(self, run: Run) -> dict[str, Any]:
        """What an audit of a run came to, and when: made now, unless the run is as it was at the last one."""
        key = run.run, run.state, run.done
        with self._lock:
            if key not in self._kept:
                report = self._source.aside(lambda c: c.audit(run))
                shown = plain(report) | {"ok": report.ok, "at": time.time(), "done": run.done, "unit": run.unit}
                self._kept = {known: value for known, value in [*self._kept.items()][1 - KEPT :] if known[0] != run.run}
                self._kept[key] = shown
            return self._kept[key]
