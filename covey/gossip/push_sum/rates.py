"""How large a step is where nodes go at their own pace, so that what a node counts for does not depend on its speed.

Without a correction, asynchronous gradient push comes to the optimum of the nodes' losses weighted by how often each
trains. Corrected, the steps of each node come to the same sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Correction = Literal["none", "elapsed", "asyspa"]
"""What a step counts for. none: as much as any other. elapsed: the time since the one before, in steps of the furthest
node, but not for more of them than are not counted yet: a rate says too much just after peers are heard that are ahead,
and where a liar was. asyspa: all steps that the furthest node made since, after the counter of AsySPA (Zhang and You,
"AsySPA: An exact asynchronous algorithm for convex optimization over digraphs", IEEE TAC 65(6), 2020, algorithm 1);
here the counter is the largest number of steps that any node is known to have made. Its proof asks for bounded pauses
and delays, which a protocol that waits for nobody does not give. What a step may count for at most follows from the
mass that the node has just then (`PushSumPolicy.largest`); with both corrections later steps make up for the rest."""


@dataclass
class Rates:
    """One node's pace beside that of the furthest.

    Attributes:
        counted: What its steps came to until now, in steps of the furthest node.
    """

    counted: float = 0.0
    _since: float | None = None
    _furthest_then: int = 0
    _last: float = 0.0
    _owed: float = 0.0
    """What was due until now, and no step counted for, where time is what counts; asyspa's counter has it anyway."""

    def resumed(self) -> None:
        """The node begins, or goes on after a restart: times from before say nothing."""
        self._since = None

    def factor(self, correction: Correction, step: int, others: int, now: float, most: float) -> float:
        """What the next step counts for.

        Args:
            correction: The run's.
            step: The node's own, from 0.
            others: How many steps the furthest of its peers that are there made, as they say.
            now: The time, in seconds.
            most: The largest factor.
        """
        due = self._factor(correction, step, others, now) + self._owed
        if correction == "elapsed":
            due = min(due, max(1.0, max(step + 1, others) - self.counted))
        factor = min(due, most)
        self._owed = due - factor if correction == "elapsed" else 0.0
        self.counted += factor
        self._last = now
        if self._since is None:
            self._since, self._furthest_then = now, max(step, others)
        return factor

    def _factor(self, correction: Correction, step: int, others: int, now: float) -> float:
        if correction == "asyspa":
            ahead = max(step + 1, others)
            return max(ahead - self.counted, 0.0 if others >= self.counted else 1.0)
        steps = max(step, others) - self._furthest_then
        if correction == "none" or self._since is None or steps <= 0 or now <= self._since:
            return 1.0
        return (now - self._last) * steps / (now - self._since)
