"""Metrics as nodes and workers report them and the record has them: sums that can be merged, or why there is none.

A metric that is missing (it is not a number, or its evaluation failed) has a text in the place of its value: on the
pipe, in signed statements, in the record. It costs nothing but itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Totals = tuple[float, float]
"""(total, count); what is shown is their ratio."""
Metrics = Mapping[str, Totals | str]
"""Metric name to its totals, or to the reason why it is missing."""
V = TypeVar("V")
_BIN = re.compile(r"(?P<curve>.+)/bin-(?P<bin>[0-9]{1,4})")
"""The name of one bin of a curve: (positives, examples) with scores in it."""
EPSILON, DELTA = "privacy/epsilon", "privacy/delta"
"""What a private run has spent."""
SIMULATED_EPSILON = "privacy/simulated-epsilon"
"""What it would have spent, had its noise not been drawn from its seed."""
NODES, EVALUATED = "nodes/", "evaluation/"
"""Before names of metrics: of all nodes' evaluations, in a version's; of a node's own, in its update."""
EVALUATION = "evaluation"
"""Stands for all metrics of an evaluation that failed as a whole."""
ALONE = "alone/"
"""Before the names of metrics of what a node trained with nobody else (`[evaluation] local_rounds`)."""
MAX_REASON = 500
"""Characters of a reason."""
MOST, MAX_NAME = 80, 100
"""Metrics of one training or evaluation; characters of a name."""


def why(reason: object) -> str:
    """A reason as it may stand in a statement: printable, on one line, not empty, and short."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(reason)).split())
    return (text[: MAX_REASON - 3] + "...") if len(text) > MAX_REASON else text or "no reason is known"


def bounded(metrics: Metrics) -> Metrics:
    """The metrics as an update can carry them: names cut and printable, and of very many those that come first.

    A curve is there with all of its bins, or with the reason why it is not: some of its bins are another curve.
    """
    groups: dict[tuple[str, bool], dict[str, Totals | str]] = {}
    for given, value in metrics.items():
        name = why(given)
        match = _BIN.fullmatch(name)
        groups.setdefault((match["curve"], True) if match else (name, False), {})[name] = value
    kept: dict[str, Totals | str] = {}
    left = 0
    for (name, is_curve), group in groups.items():
        if is_curve and (len(kept) + len(group) > MOST or max(map(len, group)) > MAX_NAME):
            group = {name: f"its {len(group)} bins do not fit: {MOST} metrics with names of {MAX_NAME} characters do"}
        if len(kept) < MOST:
            kept |= {name[:MAX_NAME]: value for name, value in group.items()}
        else:
            left += len(group)
    return kept if not left else {**kept, "others": f"{left} metrics more than the {MOST} that are recorded"}


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
    ratios = {name: _ratio(*value) for name, value in counted(metrics).items()}
    return _with_curves(ratios, counted(metrics)) | missing(metrics)


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
    ratios = _with_curves({name: _ratio(*pair) for name, pair in totals.items()}, totals)
    told = {name: texts[0] + _others(len(texts) - 1) for name, texts in reasons.items()}
    return ratios | {name: text for name, text in told.items() if isinstance(ratios.get(name, text), str)}


def _with_curves(ratios: dict[str, float | str], totals: Mapping[str, Sequence[float]]) -> dict[str, float | str]:
    """The same with an area under a curve in the place of its bins (`covey.learning.statistics.binned_auroc`)."""
    curves: dict[str, dict[int, Sequence[float]]] = {}
    for name, pair in totals.items():
        if match := _BIN.fullmatch(name):
            del ratios[name]
            curves.setdefault(match["curve"], {})[int(match["bin"])] = pair
    for name, bins in curves.items():
        ratios |= _area(name, [bins[number] for number in sorted(bins)])
    return ratios


def _area(name: str, bins: Sequence[Sequence[float]]) -> dict[str, float | str]:
    """The area from (positives, examples) of each bin, lowest scores first, and by how much it may be off."""
    positives = sum(positive for positive, _ in bins)
    pairs = positives * (sum(count for _, count in bins) - positives)
    if not 0 < pairs < math.inf:
        return {name: "all examples are of one class"}
    below = won = tied = 0.0
    for positive, count in bins:
        won, tied = won + positive * below, tied + positive * (count - positive)
        below += count - positive
    return {name: (won + tied / 2) / pairs, f"{name}-error": tied / 2 / pairs}


def _others(count: int) -> str:
    return f" (and {count} more)" if count else ""
