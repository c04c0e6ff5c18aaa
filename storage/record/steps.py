"""Steps: answers in; verdicts, a state, and a version or a phase that is opened out. A run goes on by nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import StepRecord, UpdateRecord, VersionRecord


class Steps(ABC):
    """What was decided, one number after the other."""

    @abstractmethod
    def steps(self, run: str, after: int = 0, limit: int | None = None) -> list[StepRecord]:
        """The steps with a number above `after`, in order, at most `limit` (None: all)."""

    @abstractmethod
    def last_step(self, run: str) -> StepRecord | None:
        """The newest step; None before the first."""

    @abstractmethod
    def next_arrival(self, run: str) -> UpdateRecord | None:
        """The update that is to be decided on next: the first one recorded of those that were not yet."""

    @abstractmethod
    def commit_step(
        self,
        step: StepRecord,
        judged: Sequence[UpdateRecord] = (),
        version: VersionRecord | None = None,
        *,
        bytes_received: int = 0,
        bytes_sent: int = 0,
    ) -> None:
        """Record a step, and all that changes with it, at once.

        Its group is a round that is aggregating, or an assignment whose update is the next to be decided on. Where the
        step opens assignments, the round collects again, in their phase. Else the group ends, as committed or decided,
        with the bytes that were moved for it. Each accepted update's group gets the version.

        Idempotent for the same step.

        Args:
            step: With the number that is next; its counts are the store's.
            judged: Updates of its group, and of others that were held, with their verdicts, shares and numbers.
            version: What it made.
            bytes_received: Of the group's updates.
            bytes_sent: To the group's nodes.

        Raises:
            Conflict: Another step is recorded under this number, or it is not the next one; the round is not
                aggregating the answers of its phase, or starts from another version; an update that arrived earlier
                is undecided; a verdict is about an update that is not recorded; the version is not the one after the
                newest, or another one is recorded under its number.
            NotFound: No such group.
        """
