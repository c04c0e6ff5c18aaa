"""Committed model versions and what was measured of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from covey.errors import NotFound
from covey.metrics import NODES
from covey.storage.record.records import Json, VersionRecord

MOST_SAID = 8


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


def numbers_in_words(numbers: Sequence[int]) -> str:
    """Versions for people, in at most `MOST_SAID` parts: "0, 4 to 7"; of more, the newest.

    Args:
        numbers: Ascending.
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    texts = [" to ".join(map(str, part)) for part in parts]
    return ", ".join(["..."] * (len(texts) > MOST_SAID) + texts[-MOST_SAID:])


def no_longer_kept(record: Versions, version: VersionRecord) -> NotFound:
    """The error where a version's file is gone; it says which ones there are."""
    kept = [other.version for other in record.versions(version.run, kept_only=True) if other != version]
    which = f"choose another one: {numbers_in_words(kept)}" if kept else "and no other one is"
    return NotFound(
        f"version {version.version} of run {version.run} is no longer kept; {which} ([keep] in its specification says "
        "what stays)"
    )


def rated(measured: Mapping[int, Json], metric: str, goal: Literal["max", "min"]) -> list[tuple[int, float]]:
    """Versions with their value of a metric, the best one first, of equals the newest.

    The coordinator's own evaluation counts; where no version has it, that of the nodes (`nodes/METRIC`).

    Args:
        measured: Metrics by version.
        metric: The name, without `nodes/`.
        goal: Which values are better.
    """
    name = metric if any(metric in metrics for metrics in measured.values()) else f"{NODES}{metric}"
    values = [
        (version, float(value))
        for version, metrics in measured.items()
        if isinstance(value := metrics.get(name), int | float) and math.isfinite(value)
    ]
    sign = 1.0 if goal == "max" else -1.0
    return sorted(values, key=lambda pair: (sign * pair[1], pair[0]), reverse=True)


def best_version(versions: Iterable[VersionRecord], metric: str, goal: Literal["max", "min"]) -> VersionRecord:
    """The kept version with the best value of a metric, as `rated`.

    Args:
        versions: All of a run; gone through once.
        metric: The name, without `nodes/`.
        goal: Which values are better.

    Raises:
        NotFound: No kept version was evaluated by this metric; the message lists those there are.
    """
    names: set[str] = set()
    kept: dict[int, VersionRecord] = {}
    for version in versions:
        names.update(version.metrics)
        kept |= {version.version: version} if version.kept else {}
    order = rated({number: version.metrics for number, version in kept.items()}, metric, goal)
    if not order:
        listed = ", ".join(sorted(names)) or "none"
        raise NotFound(f"no kept version was evaluated by {metric!r} (known metrics: {listed}); name a version")
    return kept[order[0][0]]
