"""Rounds, and the assignments of asynchronous runs: opened and closed. They end with a step (`Steps`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import RoundRecord, RoundState


class Rounds(ABC):
    """Rounds by their number in a run."""

    @abstractmethod
    def open_round(self, record: RoundRecord) -> None:
        """Record a new round of a running run, or a new attempt of the same round; it then collects.

        A new attempt keeps the round's `started_at`, and its updates and rejections; outcomes `declined`,
        `lost` and `late` of those who are invited again are forgotten. Idempotent for the same attempt.

        Raises:
            Conflict: The run is not running, the round has ended, or is in a later attempt, or has another
                base version, or its base version is not recorded.
            NotFound: No such run.
        """

    @abstractmethod
    def rounds(
        self,
        run: str,
        *,
        after: int = 0,
        limit: int | None = None,
        newest: bool = False,
        states: Sequence[RoundState] = (),
    ) -> list[RoundRecord]:
        """Rounds of a run by number, with counts and metrics.

        Args:
            run: The run's id; one that is not there has no rounds.
            after: Only those with a higher number.
            limit: At most so many; None: all.
            newest: The last `limit` ones rather than the first.
            states: Only those in one of these.
        """

    @abstractmethod
    def round(self, run: str, number: int) -> RoundRecord:
        """One round. Raises `NotFound`."""

    @abstractmethod
    def begin_aggregation(self, run: str, number: int) -> None:
        """From collecting to aggregating: from now on no update is added to the round. Idempotent.

        Raises `Conflict` if the round has ended, `NotFound` if there is none.
        """
