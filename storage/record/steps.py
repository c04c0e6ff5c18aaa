"""Decisions of asynchronous runs, and the state of their policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import DecisionRecord, PolicyStateRecord, UpdateRecord, VersionRecord


class Steps(ABC):
    """What was decided, one number after the other."""

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
        """Record a decision, all at once: the assignment is decided, the verdicts, the policy's state, the version.

        Each accepted update's round gets the version. Idempotent for the same decision.

        Raises:
            Conflict: Another decision is recorded under this number, or it is not the next one; an update that
                arrived earlier is undecided; the assignment is not open; a verdict is about an update that is not
                recorded; another version is recorded under the version's number.
            NotFound: No such round.
        """

    @abstractmethod
    def decisions(self, run: str, after: int = 0) -> list[DecisionRecord]:
        """The decisions with a number above `after`, in order."""

    @abstractmethod
    def policy_state(self, run: str) -> PolicyStateRecord | None:
        """The policy's state after the last decision; None before the first."""
