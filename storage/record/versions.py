"""Committed model versions and what was measured of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

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


def best(kept: Mapping[int, Json], metric: str, goal: Literal["max", "min"]) -> int | None:
    """The version with the best value of a metric, of equals the newest; None if none has it.

    The coordinator's own evaluation counts; where it has none, that of the nodes (`nodes/METRIC`).

    Args:
        kept: Metrics by version, of those among which is chosen.
        metric: The name, without `nodes/`.
        goal: Which values are better.
    """
    name = metric if any(metric in metrics for metrics in kept.values()) else f"nodes/{metric}"
    sign = 1.0 if goal == "max" else -1.0
    rated = [
        (sign * value, version)
        for version, metrics in kept.items()
        if isinstance(value := metrics.get(name), int | float) and math.isfinite(value)
    ]
    return max(rated)[1] if rated else None
