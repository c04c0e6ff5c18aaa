"""A metric's curve of a run, and its value at a rung."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeGuard

from covey.client.values import Round
from covey.errors import RunFailed, SpecError
from covey.metrics import NODES

Curve = tuple[tuple[int, float], ...]


def curve_of(rounds: Iterable[Round], metric: str, until: int | None = None) -> Curve:
    """A metric's finite values by version, up to one; the coordinator's own, or else those of the nodes.

    Raises:
        SpecError: Versions were evaluated, and by other metrics only; the message lists them.
        RunFailed: It has none.
    """
    known = [item for item in rounds if item.version and (until is None or item.version <= until)]
    names = {name for item in known for name in (*item.metrics, *item.missing)}
    if names and not names & {metric, f"{NODES}{metric}"}:
        raise SpecError(f"sweep.metric: no evaluation gives a metric {metric!r}; there are: {', '.join(sorted(names))}")
    last = max((item.version for item in known if item.metrics or item.missing), default=0)
    for name in (metric, f"{NODES}{metric}"):
        values = ((item.version, item.metrics.get(name)) for item in known)
        curve = tuple((at, float(value)) for at, value in values if _is_number(value))
        if curve and curve[-1][0] == last:
            return curve
    why = next((text for item in reversed(known) for text in item.missing.values()), "no version was evaluated")
    raise RunFailed(f"{metric} has no value at the end: {why}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
