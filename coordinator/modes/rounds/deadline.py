"""Until when an open round waits for its nodes."""

from __future__ import annotations

from collections.abc import Sequence

from covey.coordinator.modes.rounds.events import RoundPolicy


class Deadline:
    """When the time of a round's attempt, or phase, is up. Times are seconds of the machine's clock.

    Args:
        policy: The run's.
    """

    def __init__(self, policy: RoundPolicy) -> None:
        self._policy = policy
        self._since = 0.0
        self._progress: dict[str, float] = {}
        """Node to the time when bytes of its upload came last."""
        self._queued: dict[str, float] = {}
        """Node to the time when it last said that it works for another run first."""

    def begin(self, now: float) -> None:
        """An attempt, or a phase, begins; what is known of the nodes stays."""
        self._since = now

    def progressed(self, node: str, now: float) -> None:
        """Bytes of a node's upload came; told of late, perhaps."""
        self._progress[node] = max(self._progress.get(node, now), now)

    def queued(self, node: str, now: float) -> None:
        """A node works for another run first."""
        self._queued[node] = now

    def forget(self) -> None:
        """The round is over: what nodes did in it makes no difference to the next one."""
        self._progress, self._queued = {}, {}

    def at(self, pending: Sequence[str]) -> float:
        """When the time is up, where these nodes have not answered."""
        policy = self._policy
        uploading = [self._progress[node] + policy.progress_s for node in pending if node in self._progress]
        # A node that works for another run first has its time from when it is done there.
        later = [self._queued[node] + policy.deadline_s for node in pending if node in self._queued]
        latest = max([self._since + policy.deadline_s, *uploading, *later])
        return min(self._since + policy.hard_deadline_s, latest)
