"""What the rules of `[stop]` go by: from the specification, and from the record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from covey.coordinator.runs.ports import RunServices
from covey.coordinator.runs.steps.evaluation import merged_metrics, of_accepted
from covey.coordinator.runs.steps.preparation import Prepared
from covey.machines.stopping import StopRules
from covey.metrics import EVALUATED, NODES
from covey.storage.record.contract import Store, UpdateRecord


def stop_rules(services: RunServices, prepared: Prepared) -> StopRules:
    """`[stop]` of a run, with its end by the machines' clock: its time passes also while no coordinator runs."""
    section, evaluation, run = prepared.spec.stop, prepared.spec.evaluation, prepared.run
    ends_at = None
    if section.time_s is not None:
        passed_s = services.now() - (run.started_at or services.now())
        ends_at = services.clock() + section.time_s - passed_s
    return StopRules(
        metric=evaluation.metric if prepared.evaluates_centrally else NODES + evaluation.metric,
        goal=evaluation.goal,
        target=section.target,
        patience=section.patience,
        min_delta=section.min_delta,
        ends_at=ends_at,
        time_s=section.time_s or 0.0,
        sent_bytes=section.bytes,
    )


def known_to_stop(
    store: Store, run: str, rules: StopRules, *, central: bool
) -> tuple[tuple[tuple[int, float], ...], int]:
    """What the record knows for a run's rules: versions with their value, in order; what nodes have sent. Blocking.

    Nodes' values are made anew of their answers: what is recorded of them may be behind the last commit.

    Args:
        store: The record.
        run: The run.
        rules: Its rules.
        central: Whether versions are evaluated by the coordinator.
    """
    values: list[tuple[int, float | None]] = []
    if rules.by_metric and central:
        values = [(v.version, number_of(rules.metric, v.metrics)) for v in store.versions(run) if v.evaluated]
    ended = [record for record in store.rounds(run) if record.state in ("committed", "decided")]
    if rules.by_metric and not central:
        values = [(r.round - 1, _value_in(rules.metric, store.updates(run, r.round))) for r in ended]
    sent_bytes = sum(record.bytes_received for record in ended) if rules.sent_bytes is not None else 0
    return tuple((version, value) for version, value in values if value is not None), sent_bytes


def value_of_nodes(prepared: Prepared, updates: Iterable[UpdateRecord]) -> float | None:
    """What the nodes of a round measured of the version before, of the metric that the run goes by."""
    if prepared.evaluates_centrally or not prepared.spec.stop.by_metric:
        return None
    return _value_in(NODES + prepared.spec.evaluation.metric, updates)


def number_of(metric: str, metrics: Mapping[str, object]) -> float | None:
    """A metric's value; None where it is missing, or no finite number."""
    value = metrics.get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _value_in(metric: str, updates: Iterable[UpdateRecord]) -> float | None:
    return number_of(metric, merged_metrics(of_accepted(updates), EVALUATED))
