"""Steps: commits of synchronous rounds, and decisions of asynchronous runs with their policy's state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import DecisionRecord, PolicyStateRecord, StepRecord, UpdateRecord, VersionRecord


class Steps(ABC):
    """What was decided, one number after the other."""

    @abstractmethod
    def steps(self, run: str, after: int = 0, limit: int | None = None) -> list[StepRecord]:
        """The steps with a number above `after`, in order, at most `limit` (None: all); of either mode."""

    @abstractmethod
    def last_step(self, run: str) -> StepRecord | None:
        """The newest step; None before the first."""

    @abstractmethod
    def next_arrival(self, run: str) -> UpdateRecord | None:
        """The update that is to be decided on next: the first one recorded of those that were not yet."""

    @abstractmethod
    def decide(
        self,
        decision: DecisionRecord,
        state: PolicyStateRecord,
        verdicts: Sequence[UpdateRecord],
        version: VersionRecord | None,
        *,
        bytes_received: int,
        bytes_sent: int,
    ) -> None:
        """Record a decision, all at once: its step, the assignment's end, verdicts, the policy's state, the version.

        Each accepted update's round gets the version. Idempotent for the same decision.

        Raises:
            Conflict: Another decision is recorded under this number, or it is not the next one; an update that
                arrived earlier is undecided; the assignment is not open; a verdict is about an update that is not
                recorded; another version is recorded under the version's number.
            NotFound: No such round.
        """

    @abstractmethod
    def decisions(self, run: str, after: int = 0) -> list[DecisionRecord]:
        """The decisions with a number above `after`, in order; none of a synchronous run."""

    @abstractmethod
    def policy_state(self, run: str) -> PolicyStateRecord | None:
        """The policy's state after the last decision; None before the first."""
