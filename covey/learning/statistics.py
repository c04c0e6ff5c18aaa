"""Metrics that can be merged over batches, nodes and rounds: sums and counts, never ready means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


MAX_BINS, MAX_CLASSES = 80, 9
"""So many metrics fit a node's answer, with nothing beside them; a curve that does not fit as a whole has no value."""


def binned_auroc(
    scores: Tensor, targets: Tensor, bins: int = 50, low: float = 0.0, high: float = 1.0, name: str = "auroc"
) -> dict[str, Stat]:
    """The area under the ROC curve, as something that can be merged over batches and nodes: counts by score.

    What is shown in their place is the area over all examples together, `NAME`, and `NAME-error`, by how much it may be
    off: half the share of pairs (positive, negative) whose scores fall into one bin. It is exact where none does.

    Args:
        scores: Floats `[n]`: higher for positives.
        targets: 1 (or True) for positives, else 0, `[n]`.
        bins: Of equal width, at most `MAX_BINS`.
        low: Scores below count as this.
        high: Scores above count as this.
        name: What it is called.

    Raises:
        TaskError: Too many bins, or scores that are not finite.
    """
    if not 1 <= bins <= MAX_BINS:
        raise TaskError(f"binned_auroc takes 1 to {MAX_BINS} bins, not {bins}")
    if not torch.isfinite(scores).all():
        raise TaskError("binned_auroc got scores that are not finite")
    places = ((scores.detach().double().flatten() - low) / (high - low) * bins).floor().clamp(0, bins - 1).long()
    positive = torch.bincount(places, weights=targets.flatten().double(), minlength=bins).tolist()
    count = torch.bincount(places, minlength=bins).tolist()
    return {f"{name}/bin-{k}": Stat(positive[k], count[k]) for k in range(bins) if count[k]}


def confusion(predicted: Tensor, targets: Tensor, classes: int, name: str = "confusion") -> dict[str, Stat]:
    """A confusion matrix: `NAME/i-j` is the share of the examples of class i that were taken for class j.

    Args:
        predicted: Classes, integers `[n]`.
        targets: The true ones, `[n]`.
        classes: How many there are, at most `MAX_CLASSES`.
        name: What it is called.

    Raises:
        TaskError: Too many classes.
    """
    if not 1 <= classes <= MAX_CLASSES:
        raise TaskError(f"confusion takes 1 to {MAX_CLASSES} classes, not {classes}")
    flat = targets.flatten().long() * classes + predicted.flatten().long()
    matrix = torch.bincount(flat, minlength=classes * classes).reshape(classes, classes)
    return {
        f"{name}/{i}-{j}": Stat(int(matrix[i, j]), int(matrix[i].sum()))
        for i in range(classes)
        if matrix[i].sum()
        for j in range(classes)
    }


def merge(first: Mapping[str, Stat], second: Mapping[str, Stat]) -> dict[str, Stat]:
    """Merge two sets of metrics by name; a metric that only one of them has is taken as it is."""
    merged = dict(first)
    for name, stat in second.items():
        merged[name] = merged[name].merge(stat) if name in merged else stat
    return merged
