"""Metrics as nodes and workers report them and the record has them: sums that can be merged, or why there is none.

A metric that is missing (it is not a number, or its evaluation failed) has a text in the place of its value: on the
pipe, in signed statements, in the record. It costs nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Totals = tuple[float, float]
"""(total, count); what is shown is their ratio."""
Metrics = Mapping[str, Totals | str]
"""Metric name to its totals, or to the reason why it is missing."""
V = TypeVar("V")
EVALUATION = "evaluation"
"""Stands for all metrics of an evaluation that failed as a whole."""
MAX_REASON = 500
"""Characters of a reason."""


def why(reason: object) -> str:
    """A reason as it may stand in a statement: printable, on one line, not empty, and short."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
    return (text[: MAX_REASON - 3] + "...") if len(text) > MAX_REASON else text or "no reason is known"


def failed(reason: object) -> Metrics:
    """What an evaluation came to that failed as a whole."""
    return {EVALUATION: why(reason)}


def counted(metrics: Mapping[str, V | str]) -> dict[str, V]:
    """The metrics that have a value."""
    return {name: value for name, value in metrics.items() if not isinstance(value, str)}


def missing(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Why the others have none."""
    return {name: value for name, value in metrics.items() if isinstance(value, str)}


def ratios(metrics: Mapping[str, Totals | str]) -> dict[str, float | str]:
    """Each metric's mean, or the reason why there is none."""
    return {name: value if isinstance(value, str) else _ratio(*value) for name, value in metrics.items()}


def _ratio(total: float, count: float) -> float | str:
    if not count:
        return "nothing was counted"
    value = total / count
    return value if math.isfinite(value) else f"its value is {value}"


def merged(parts: Iterable[tuple[str, Mapping[str, Any]]], prefix: str = "") -> dict[str, float | str]:
    """The metrics of several nodes whose names begin with `prefix`, as one: ratios by name without it.

    A metric that some of the nodes lack is that of the others; where all lack it, the first says why.

    Args:
        parts: Node name and metrics (pairs may be lists); in which order counts for rounding.
        prefix: Of the names.
    """
    totals: dict[str, list[float]] = {}
    reasons: dict[str, list[str]] = {}
    for node, metrics in parts:
        for name, value in metrics.items():
            if not name.startswith(prefix):
                continue
            short = name.removeprefix(prefix)
            if isinstance(value, str):
                reasons.setdefault(short, []).append(f"{node}: {value}")
                continue
            entry = totals.setdefault(short, [0.0, 0.0])
            entry[0] += value[0]
            entry[1] += value[1]
    found = {name: _ratio(*pair) for name, pair in totals.items()}
    told = {name: texts[0] + _others(len(texts) - 1) for name, texts in reasons.items()}
    return found | {name: text for name, text in told.items() if isinstance(found.get(name, text), str)}


def _others(count: int) -> str:
    return f" (and {count} more)" if count else ""
