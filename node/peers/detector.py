"""When a peer's silence is suspicious: as a function of how regularly it was heard. Pure: no clock, no I/O.

Hayashibara et al. 2004 ("The phi accrual failure detector", section 4): phi is -log10 of the chance that a peer which
is there is silent for so long, by the normal distribution of the intervals of its newest signs of life. Deviations: a
pause is borne whatever the history says (a busy machine misses a beat or two), and the deviation has a least value, as
in Akka's; an interval counts for at most ten beats, so that one outage does not make the detector blind to the next.
"""

from __future__ import annotations

import math
from collections import deque

WINDOW = 64
THRESHOLD = 8.0
"""One false suspicion in 10^8 looks."""
PAUSE_BEATS = 3.0
LEAST_DEVIATION = 0.25
"""Of the interval that is expected."""
LONGEST_BEATS = 10.0


class PhiAccrual:
    """Of one peer.

    Args:
        beat_s: The interval at which a peer is expected to say something.
        threshold: From this phi on a peer is suspected.
        pause_s: How long a pause is borne whatever the history says; None: three beats.
    """

    def __init__(self, beat_s: float, threshold: float = THRESHOLD, pause_s: float | None = None) -> None:
        self._beat_s, self._threshold = beat_s, threshold
        self._pause_s = PAUSE_BEATS * beat_s if pause_s is None else pause_s
        self._intervals: deque[float] = deque([beat_s], WINDOW)
        self._heard_at: float | None = None

    def heard(self, now: float) -> None:
        """A sign of life, now (seconds of one clock that does not go back)."""
        if self._heard_at is not None:
            self._intervals.append(min(now - self._heard_at, LONGEST_BEATS * self._beat_s))
        self._heard_at = now

    def silence_s(self, now: float) -> float:
        """For how long it was not heard; 0 if it never was."""
        return 0.0 if self._heard_at is None else now - self._heard_at

    def phi(self, now: float) -> float:
        """How suspicious its silence is; infinite where the chance is too small for a float, 0 before it was heard."""
        count, total = len(self._intervals), sum(self._intervals)
        mean = total / count
        variance = sum((interval - mean) ** 2 for interval in self._intervals) / count
        deviation = max(math.sqrt(variance), LEAST_DEVIATION * self._beat_s)
        late = self.silence_s(now) - mean - self._pause_s
        chance = math.erfc(late / deviation / math.sqrt(2)) / 2
        return -math.log10(chance) if chance > 0 else math.inf

    def is_suspicious(self, now: float) -> bool:
        """Whether it was heard once, and is silent for too long now."""
        return self._heard_at is not None and self.phi(now) >= self._threshold
