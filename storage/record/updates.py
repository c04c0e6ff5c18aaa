"""What nodes answer: updates, and outcomes without one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import ContributionRecord, SignedUpdateRecord, UpdateRecord, Verdict


class Updates(ABC):
    """Answers by round and node."""

    @abstractmethod
    def record_update(self, update: UpdateRecord) -> bool:
        """Record a durable update (verdict received).

        Returns True if it is new, False if the same digest is recorded already, in whatever state the round
        is. Replaces an outcome `declined`, `lost` or `late` of the same node and round. In an asynchronous run the
        round gets the next `arrival`.

        Raises:
            Conflict: This node has another update in this round, or was rejected, or the round is not
                collecting any more.
            NotFound: No such round.
        """

    @abstractmethod
    def record_outcome(self, update: UpdateRecord) -> bool:
        """Record that a node declined, was lost, or sent an update that is rejected before it counts.

        Returns True if it was written, False if what is recorded stays as it is. Of a received update only verdict,
        reason and numbers change, and only to `rejected` (the rule left it out, or its node was evicted); statement,
        files and time of receipt stay. An accepted or rejected one stays as it is, and so does a round that has
        ended. Raises `NotFound` if there is no such round.
        """

    @abstractmethod
    def forget_update(self, update: UpdateRecord) -> bool:
        """Drop an update that was recorded and cannot be used, as its files are damaged: its node is asked again.

        Only of an open round, and only one that has no verdict yet; the round collects again, and an assignment of an
        asynchronous run loses its place in the order of arrival. False: there is nothing to drop. Raises `NotFound`.
        """

    @abstractmethod
    def updates(self, run: str, number: int) -> list[UpdateRecord]:
        """One round's updates and outcomes, by node id and phase."""

    @abstractmethod
    def updates_of(self, run: str, numbers: Sequence[int]) -> list[UpdateRecord]:
        """The updates of several rounds, by round, node and phase."""

    @abstractmethod
    def verdicts(self, run: str, *, after: int = 0, upto: int) -> list[tuple[int, str, Verdict]]:
        """Round, node and verdict in phase 1 of the rounds from `after` (excluded) to `upto`, in this order."""

    @abstractmethod
    def contributions(self, run: str, nodes: Sequence[str]) -> list[ContributionRecord]:
        """What each of these nodes did in a run, in this order; zeros for one that was asked for nothing.

        It costs as much as there are answers, which are counted in an index.
        """

    @abstractmethod
    def close_round(self, outcome: UpdateRecord, *, discard: bool = False) -> bool:
        """End an assignment without a decision (failed): its node declined, was lost, or was evicted.

        Returns True if it has ended without one. An update that was recorded meanwhile stays, and the assignment
        with it (False), unless it is undecided and `discard` says to reject it. Idempotent. Raises `NotFound`.
        """

    @abstractmethod
    def signed_updates(
        self, run: str, after: tuple[int, str] = (0, ""), limit: int | None = None
    ) -> list[SignedUpdateRecord]:
        """The updates of a run that were signed, whatever the verdict, by round, node and phase.

        Args:
            run: The run's id.
            after: (round, node): only those that come after all of this node's in this round.
            limit: About so many: a page ends with the last phase of a node; None: all.
        """

    @abstractmethod
    def newest_verdicts(self, run: str, roster: Sequence[str]) -> dict[str, UpdateRecord]:
        """Node to its newest update that was accepted or rejected in a round that is over.

        A node of the roster that has none is left out.
        """
