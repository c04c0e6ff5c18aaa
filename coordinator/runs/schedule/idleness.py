"""Whether a run works, or keeps a place that another one could have."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.ports import RunServices

WAITS_S = 2.0
"""A run that waits for nodes for so long, and not only until it has heard who is there, gives its place to another."""
SILENT_S = 300.0
"""And one of which nothing was heard for so long: nodes at work say how far they are twice a second."""
UNDECIDED_S = 3600.0
"""And one that made no version, and decided on no update, for so long: its rounds do not close, whatever nodes say. In
a gossip run nodes decide."""


class Idleness:
    """Of the active runs.

    Args:
        services: What they are given.
    """

    def __init__(self, services: RunServices) -> None:
        self._services = services
        self._waits_since: WeakKeyDictionary[ActiveRun, float] = WeakKeyDictionary()
        self._decided: WeakKeyDictionary[ActiveRun, tuple[tuple[int, int], float]] = WeakKeyDictionary()

    def of(self, run: ActiveRun) -> bool:
        """Whether a run does nothing now that would keep a place from others."""
        now, operator = self._services.clock(), self._services.operator
        if operator.paused or operator.draining or run.facts.lacks_place:  # then it cannot work, and is not to blame
            run.heard_at = now
            self._decided.pop(run, None)
        if not run.is_waiting:
            self._waits_since.pop(run, None)
        since = max(self._waits_since.setdefault(run, now), run.joined_at)  # a node that came may be what it waited for
        waits = run.is_waiting and now - since >= WAITS_S
        return waits or now - run.heard_at >= SILENT_S or self._is_undecided(run, now)

    def _is_undecided(self, run: ActiveRun, now: float) -> bool:
        mark = run.facts.committed, run.facts.decided
        if run.facts.counts == "steps" or mark != self._decided.get(run, (mark, now))[0]:
            self._decided.pop(run, None)
        return now - self._decided.setdefault(run, (mark, now))[1] >= UNDECIDED_S
