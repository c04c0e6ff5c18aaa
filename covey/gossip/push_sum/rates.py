"""How large a step is where nodes go at their own pace, so that what a node counts for does not depend on its speed.

Without a correction, asynchronous gradient push comes to the optimum of the nodes' losses weighted by how often each
trains. Corrected, the steps of each node come to the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
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

SLOWEST = 16.0
"""For so many steps of the furthest a node's step has to count at most in `common`: of one that is slower yet, or says
so, the others' steps become no smaller for it."""
AT_WORK = 0.5
"""What part of all mass nodes have while they train, where nobody waits: the rest is on its way."""


def common(counts: Sequence[int], largest: float) -> float:
    """What all steps of all nodes are scaled by, so that those of slow nodes can count for all that they have to: <= 1.

    Together nodes have as much mass as there is, so what they can count for is bounded on average, and not for each: a
    slow node among fast ones is given most of it. Who knows the same counts comes to the same.

    Args:
        counts: How many steps each of those that are there made, this node included; who made none does not count yet.
        largest: The largest factor on a step's learning rate; where nodes on average need at most half of it, 1.
    """
    needs = [min((max(counts) + 1) / (steps + 1), SLOWEST) for steps in counts if steps]
    return min(1.0, largest * AT_WORK * len(needs) / sum(needs)) if needs else 1.0


@dataclass
class Rates:
    """One node's pace beside that of the furthest.

    Attributes:
        counted: What its steps came to until now, in steps of the furthest node, whatever all steps are scaled by.
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

    def factor(self, correction: Correction, counts: Sequence[int], now: float, scale: float, largest: float) -> float:
        """What the learning rate of the next step is multiplied by, for its speed and its mass.

        Args:
            correction: The run's.
            counts: How many steps this node made, then how many each of its peers that are there did, as they say.
            now: The time, in seconds.
            scale: The factor for its mass; 0: it has none.
            largest: The largest factor.
        """
        step, others = counts[0], max(counts[1:], default=0)
        whole = scale * (common(counts, largest) if correction != "none" else 1.0)
        due = self._factor(correction, step, others, now) + self._owed
        if correction == "elapsed":
            due = min(due, max(1.0, max(step + 1, others) - self.counted))
        factor = min(due, largest / (whole or 1.0))
        self._owed = due - factor if correction == "elapsed" else 0.0
        self.counted += factor
        self._last = now
        if self._since is None:
            self._since, self._furthest_then = now, max(step, others)
        return factor * whole

    def _factor(self, correction: Correction, step: int, others: int, now: float) -> float:
        if correction == "asyspa":
            ahead = max(step + 1, others)
            return max(ahead - self.counted, 0.0 if others >= self.counted else 1.0)
        steps = max(step, others) - self._furthest_then
        if correction == "none" or self._since is None or steps <= 0 or now <= self._since:
            return 1.0
        return (now - self._last) * steps / (now - self._since)
