"""Audits of runs that the page asked for: each is made anew."""

from __future__ import annotations

import threading
import time
from typing import Any

from covey.client.values import Run
from covey.ui.shapes import plain
from covey.ui.source import Source


class Audits:
    """One audit at a time, each over a connection of its own.

    Args:
        source: The federation.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()

    def of(self, run: Run) -> dict[str, Any]:
        """What an audit of a run comes to now, and when that is."""
        with self._lock:
            report = self._source.aside(lambda c: c.audit(run))
        shown: dict[str, Any] = plain(report)
        return shown | {"ok": report.ok, "at": time.time(), "done": run.done, "unit": run.unit}
