"""Metrics that can be merged over batches, nodes and rounds: sums and counts, never ready means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from covey.errors import TaskError


@dataclass(frozen=True)
class Stat:
    """A sum over `count` things; what is shown is their ratio."""

    total: float
    count: float
    reason: str = ""
    """Why it is missing; empty: it is not."""

    @classmethod
    def missing(cls, reason: str) -> Stat:
        """A metric that is not defined here: of one class only, say. It costs nothing but itself."""
        return cls(math.nan, 0.0, reason)

    def merge(self, other: Stat) -> Stat:
        """The statistic over both; missing where one of them is."""
        return Stat(self.total + other.total, self.count + other.count, self.reason or other.reason)

    @property
    def why_missing(self) -> str:
        """Why there is no value to show; empty where there is one."""
        if self.reason or not (math.isfinite(self.total) and math.isfinite(self.count)):
            return self.reason or f"it is {self.total:g} over {self.count:g}"
        return "" if self.count >= 0 else f"its count is {self.count:g}"

    @property
    def ratio(self) -> float:
        """The mean, or NaN if nothing was counted."""
        return self.total / self.count if self.count else math.nan

    def to_json(self) -> list[float]:
        """`[total, count]`, for JSON."""
        return [float(self.total), float(self.count)]

    @classmethod
    def from_json(cls, value: Sequence[float]) -> Stat:
        """The inverse of `to_json`.

        Raises:
            TaskError: Not two numbers.
        """
        try:
            total, count = value
            return cls(float(total), float(count))
        except (TypeError, ValueError) as error:
            raise TaskError(f"a metric is [total, count], not {value!r}") from error


def merge(first: Mapping[str, Stat], second: Mapping[str, Stat]) -> dict[str, Stat]:
    """Merge two sets of metrics by name; a metric that only one of them has is taken as it is."""
    merged = dict(first)
    for name, stat in second.items():
        merged[name] = merged[name].merge(stat) if name in merged else stat
    return merged
