"""Runs, from their submission to their end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import RunRecord, RunState, RunSummary, VersionRecord


class Runs(ABC):
    """Runs by id or name."""

    @abstractmethod
    def add_run(self, run: RunRecord, first: VersionRecord | None = None) -> None:
        """Record a submitted run (state queued), with its version 0 if it has one already.

        Raises `Conflict` if the id exists.
        """

    @abstractmethod
    def run(self, run: str) -> RunRecord:
        """A run by its id, or the newest of the runs of that name. Raises `NotFound`."""

    @abstractmethod
    def runs(
        self, *, states: Sequence[RunState] = (), name: str = "", before: str = "", limit: int = 100
    ) -> list[RunRecord]:
        """Runs, newest submission first, optionally only those in some states, or of a name.

        Args:
            states: Only those in one of these.
            name: Only those of just this name.
            before: A run's id: only those that come after it in this order. Raises `NotFound`: there is no such run.
            limit: At most so many.
        """

    @abstractmethod
    def run_summaries(self, runs: Sequence[str]) -> dict[str, RunSummary]:
        """What each of these runs (ids) has come to; an empty summary where nothing is recorded.

        It costs as much for a run with many versions and updates as for one with few.
        """

    @abstractmethod
    def count_runs(self, states: Sequence[RunState]) -> int:
        """How many runs are in one of these states."""

    @abstractmethod
    def start_run(
        self, run: str, roster: Sequence[str], parts: int, layout: str, first: VersionRecord, at: float
    ) -> None:
        """From queued to running, with its roster, layout and version 0, all at once.

        Idempotent for the same version 0. Raises `Conflict` if the run is in another state, `NotFound` if
        there is none.
        """

    @abstractmethod
    def extend_roster(self, run: str, nodes: Sequence[str], parts: int) -> tuple[str, ...]:
        """Append nodes that are not in the roster yet, record `parts` if still 0; returns the roster."""

    @abstractmethod
    def set_reason(self, run: str, reason: str) -> None:
        """What a running run waits for; empty when it goes on. A run that has ended keeps its reason."""

    @abstractmethod
    def finish_run(self, run: str, state: RunState, reason: str, at: float) -> None:
        """Bring a run into a terminal state; one that is in one keeps it. An unfinished round fails too."""
