"""The numbers of a run, for the machines of its nodes."""

from __future__ import annotations

from dataclasses import dataclass

from covey.gossip.averaging import NEVER, Averaging
from covey.gossip.mass import ONE
from covey.gossip.push_sum.rates import Correction
from covey.gossip.push_sum.weighing import Weighs


@dataclass(frozen=True)
class PushSumPolicy:
    """The numbers of a run.

    Attributes:
        steps: How many steps a node makes, with those that only average.
        overlap: How many steps a batch may be late before the node waits for it: 0 in lock step; None: it never waits.
        max_in_flight: Publications that may have unacknowledged batches, but for those that nobody answers for long.
        least: Units that a node keeps at least: below, it stops pushing.
        most_scale: The largest factor on the learning rate, which grows as a node's mass becomes less.
        most_corrected: The same where steps are corrected for speed, of both together. It is what moves z, so what may
            diverge. A node that waits for nobody trains with about half of the mean mass, the rest being on its way:
            that doubles the factor, so a step can count for about four on average; where nodes need more, all steps are
            smaller (`covey.gossip.push_sum.rates.common`).
        correction: How slow and fast nodes come to count alike.
        averaging: Which steps only average, in lock step.
        weighs: Who says what a model counts for.
        pairs: Whether it gives halves in pairs (`covey.gossip.push_sum.pairs`), where nobody waits.
        mutual: Whether models count only between two who send each other theirs in a step: for both or for neither.
        differences: Whether a body goes on from those before: each that comes is mixed in, in order; of one that comes
            late nothing counts but that.
        takes_late: Whether what comes late, or early, is taken as well where the receiver weighs.
    """

    steps: int
    overlap: int | None = 0
    max_in_flight: int = 2
    least: int = ONE >> 10
    most_scale: float = 4.0
    most_corrected: float = 8.0
    correction: Correction = "none"
    averaging: Averaging = NEVER
    weighs: Weighs = "mass"
    pairs: bool = False
    mutual: bool = False
    differences: bool = False
    takes_late: bool = False

    @property
    def largest(self) -> float:
        """The largest factor on a step's learning rate."""
        return self.most_scale if self.correction == "none" else self.most_corrected
