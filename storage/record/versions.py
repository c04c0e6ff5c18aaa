"""Committed model versions and what was measured of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from covey.storage.record.records import Json, VersionRecord


class Versions(ABC):
    """Versions by their number in a run."""

    @abstractmethod
    def add_version(self, version: VersionRecord) -> None:
        """Record a version outside a round. Idempotent; raises `Conflict` if another one has this number."""

    @abstractmethod
    def versions(
        self, run: str, *, after: int = -1, limit: int | None = None, kept_only: bool = False
    ) -> list[VersionRecord]:
        """Versions of a run by number.

        Args:
            run: The run's id.
            after: Only those with a higher number.
            limit: At most so many; None: all.
            kept_only: Only those whose files are kept.
        """

    @abstractmethod
    def version(self, run: str, number: int) -> VersionRecord:
        """One version; -1: the newest. Raises `NotFound`."""

    @abstractmethod
    def record_metrics(self, run: str, version: int, metrics: Json, *, evaluated: bool) -> None:
        """Merge metrics into a version's; with `evaluated`, mark it as evaluated. Raises `NotFound`."""
