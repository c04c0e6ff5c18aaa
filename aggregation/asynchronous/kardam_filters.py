"""Kardam's two filters as functions of scalars, and the passes over files that give the scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from covey.vectors import BLOCK_ELEMENTS, Vector, spans

Frequency = Literal["off", "loose", "strict"]
Blocks = Callable[[slice], Tensor]


def gradient_norms(gradient: Vector, previous: Vector | None) -> tuple[float, float | None]:
    """l2 norm of a gradient, and its distance from an earlier one, in one pass; sums are float64."""
    if previous is None:
        return _norm(gradient.d, gradient.read), None
    squared = difference = 0.0
    for columns in spans(gradient.d, BLOCK_ELEMENTS):
        block = gradient.read(columns).double()
        squared += float(block.dot(block))
        block = block - previous.read(columns).double()
        difference += float(block.dot(block))
    return math.sqrt(squared), math.sqrt(difference)


def model_distance(a: Vector, b: Vector) -> float:
    """l2 distance of two models; sums are float64."""
    return _norm(a.d, lambda columns: a.read(columns).double() - b.read(columns).double())


def model_norm(model: Vector) -> float:
    """l2 norm of a model; sums are float64."""
    return _norm(model.d, model.read)


def _norm(d: int, read: Blocks) -> float:
    total = 0.0
    for columns in spans(d, BLOCK_ELEMENTS):
        block = read(columns).double()
        total += float(block.dot(block))
    return math.sqrt(total)


def coefficient(change: float | None, moved: float) -> float | None:
    """An empirical Lipschitz coefficient ||g - g'|| / ||x - x'||; None where there is nothing to compare.

    It does not see a change of sign of both gradients, and grows in proportion with a factor on both.
    """
    if change is None or not moved > 0 or not math.isfinite(change / moved):
        return None
    return change / moved


def quantile(values: Sequence[float], f: int) -> float | None:
    """The (m - f)-th smallest of m values, one a node: the (n - f) / n quantile once all n nodes have one.

    Never above the largest value of an honest node, whatever f of the nodes do, also while only m < n nodes have
    a value (the plain quantile of m values is then too high). None where m <= f.
    """
    return sorted(values)[len(values) - f - 1] if len(values) > f else None


def fraction_quantile(values: Sequence[float], fraction: float) -> float | None:
    """The ceil(fraction m)-th smallest of m values; None of none."""
    return sorted(values)[math.ceil(fraction * len(values)) - 1] if values else None


def interpolated_quantile(values: Sequence[float], fraction: float) -> float | None:
    """The value at place fraction (m + 1) of m sorted ones, between two neighbours in proportion; None of none.

    As `Percentile` of Apache Commons Math has it by default; a place before the first or behind the last is that one.
    """
    ordered, place = sorted(values), fraction * (len(values) + 1)
    below = math.floor(place)
    if not ordered or not 1 <= below < len(ordered):
        return (ordered[0] if below < 1 else ordered[-1]) if ordered else None
    low, high = ordered[below - 1], ordered[below]
    return low + (place - below) * (high - low)


def too_frequent(node: str, window: Sequence[str], f: int, how: Frequency) -> bool:
    """Whether accepting a node's update would let it be accepted too often.

    `strict`: any 2f + 1 consecutive accepted updates are of different nodes, which is the same as: any f nodes have
    at most f of them (so at least f + 1 are honest). `loose`: any single node has at most f of them; f nodes
    together may have more.

    Args:
        node: Whose update it is.
        window: The nodes of the last 2f accepted updates.
        f: How many nodes may be Byzantine; with 0 nothing is too frequent.
        how: The filter.
    """
    if how == "off" or f == 0:
        return False
    return window.count(node) >= (1 if how == "strict" else f)


def next_window(window: tuple[str, ...], node: str, f: int) -> tuple[str, ...]:
    """The nodes of the last 2f accepted updates, after one more."""
    longer = (*window, node)
    return longer[max(0, len(longer) - 2 * f) :]
