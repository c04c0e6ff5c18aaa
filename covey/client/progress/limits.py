"""How near a run is to what ends it before its last round: its privacy budget, and the other rules of `[stop]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from covey.client.progress.history import History, number_of
from covey.client.values import Run
from covey.machines.stopping import Distance, Stopping, StopRules
from covey.metrics import DELTA, EPSILON, NODES, SIMULATED_EPSILON


@dataclass(frozen=True)
class PrivacySpent:
    """What a private run has spent."""

    epsilon: float | None
    """None: no version has spent any yet."""
    delta: float | None
    budget: float | None
    """`[stop] epsilon`; None: there is none."""
    simulated: bool
    """Whether the noise was drawn from the run's seed, so that nobody is protected."""


def privacy_of(run: Run) -> PrivacySpent | None:
    """What a private run has spent, and of which budget; None: nothing in it is private."""
    spent = run.metrics.get(EPSILON, run.metrics.get(SIMULATED_EPSILON))
    if spent is None and not run.spec.get("privacy"):
        return None
    is_simulated = EPSILON not in run.metrics and SIMULATED_EPSILON in run.metrics
    budget = _section(run, "stop").get("epsilon")
    return PrivacySpent(number_of(spent), number_of(run.metrics.get(DELTA)), number_of(budget), is_simulated)


def distances_of(run: Run, history: History, now: float) -> list[Distance]:
    """How far each rule of `[stop]` but privacy is from ending a run.

    Args:
        run: The run.
        history: Its rounds; rules that go by them are left out where some are not known. Of very many, only the
            extremes of the older ones count: as the best value, and as evaluations since then.
        now: In Unix seconds.
    """
    stop, evaluation = _section(run, "stop"), _section(run, "evaluation")
    time_s, patience, sent_bytes = (number_of(stop.get(name)) for name in ("time_s", "patience", "bytes"))
    target, is_whole = number_of(stop.get("target")), history.is_whole
    name = str(evaluation.get("metric", ""))
    rules = StopRules(
        metric=name if any(name in point.metrics for point in history.points.values()) else NODES + name,
        goal="min" if evaluation.get("goal") == "min" else "max",
        target=target if is_whole else None,
        patience=int(patience) if patience is not None and is_whole else None,
        min_delta=number_of(stop.get("min_delta")) or 0.0,
        ends_at=None if time_s is None else (run.started_at or now) + time_s,
        time_s=time_s or 0.0,
        sent_bytes=int(sent_bytes) if sent_bytes is not None and is_whole else None,
    )
    points = [point for _, point in sorted(history.points.items())]
    values = [(0, point.metrics[rules.metric]) for point in points if rules.metric in point.metrics]
    return Stopping(rules, values, history.received).distances(now)


def _section(run: Run, name: str) -> Mapping[str, Any]:
    """Of its specification, as a coordinator of another version may have it."""
    section = run.spec.get(name)
    return section if isinstance(section, Mapping) else {}
