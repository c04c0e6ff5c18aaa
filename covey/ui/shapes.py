"""Values of the client as JSON for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from statistics import median
from typing import Any, Literal

from covey.client.reading.figures import has_figures
from covey.client.values import Run

LARGE = ("spec", "roster")
"""Of a run: not in lists."""


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects, and None in place of a number that is none or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def kind_of(run: Run) -> Literal["", "evaluation", "statistics"]:
    """What a run makes in place of a model; empty: it trains one."""
    section = run.spec.get("evaluation")
    if isinstance(section, Mapping) and section.get("only"):
        return "evaluation"
    return "statistics" if has_figures(run) else ""


def run_json(run: Run, *, whole: bool = False) -> dict[str, Any]:
    """A run and how far it is; `whole`: with its specification and roster."""
    shown = {item.name: plain(getattr(run, item.name)) for item in fields(run) if whole or item.name not in LARGE}
    return shown | {
        "full_name": run.full_name,
        "kind": kind_of(run),
        "priority": run.spec.get("priority", 0),
        "parent": run.parent,
        "unit": run.unit,
        "done": run.done,
        "whole": run.whole,
        "ended": run.ended,
    }


def flattened(value: Any, path: str = "") -> dict[str, Any]:
    """A specification as its keys with dots; a list is one value."""
    if not isinstance(value, Mapping) or not value:
        return {path: plain(value)}
    return {
        name: leaf
        for key, item in value.items()
        for name, leaf in flattened(item, f"{path}.{key}" if path else key).items()
    }


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys in which two specifications differ, with what each has; a key that one lacks has no value there."""
    ours, theirs = flattened(first), flattened(second)
    return [
        {"key": key, "first": ours.get(key), "second": theirs.get(key), "in": [key in ours, key in theirs]}
        for key in sorted(ours.keys() | theirs.keys())
        if key not in ours or key not in theirs or ours[key] != theirs[key]
    ]


def spreads(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each number that verdicts have: the least, the median and the largest of all updates, and how many have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                columns.setdefault(name, []).append(float(value))
    return {name: _spread(values) for name, values in columns.items()}


def _spread(values: list[float]) -> dict[str, float]:
    return {"least": min(values), "median": median(values), "most": max(values), "of": len(values)}
