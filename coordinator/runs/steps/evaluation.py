"""The evaluations of one run: by the coordinator's worker, one at a time, and what nodes say of the last version."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import structlog

from covey.coordinator.runs.facts import RunFacts
from covey.coordinator.runs.ports import RunServices
from covey.errors import CoveyError
from covey.machines.evaluation import is_due
from covey.metrics import EVALUATED, NODES, counted, failed, merged, missing, ratios
from covey.spec import RunSpec, parse_json
from covey.storage.record.contract import EventRecord, RunRecord, Store, UpdateRecord, VersionRecord
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import EVALUATE

log = structlog.get_logger(room="coordinator")
MOST_NAMED = 5
"""Metrics that a node lacks of which an event says why."""
NodeMetrics = Mapping[str, Sequence[float] | str]
"""Metric name to [total, count], or why it is missing: as nodes and workers report them."""


class RunEvaluation:
    """Evaluates versions of one run, and puts what comes out on record.

    Args:
        services: What the run is given.
        run: The run.
        facts: Where metrics show it.
    """

    def __init__(self, services: RunServices, run: RunRecord, facts: RunFacts) -> None:
        self._services, self._run, self._facts = services, run, facts
        self._turn = asyncio.Lock()
        self.asked: dict[str, int] = {}
        """Nodes that were asked to evaluate a version, and have not answered."""
        self._of_nodes: dict[str, NodeMetrics] = {}
        self._log = log.bind(run=run.run, name=run.name)

    async def evaluate(self, version: int) -> Mapping[str, float | str]:
        """Evaluate a version on the task's central data, if its file is kept; a failure is put on record, and final."""
        store, metrics = self._services.store, dict[str, float | str]()
        try:
            async with self._turn:
                metrics = await self._measure(version)
        except CoveyError as error:
            metrics = ratios(failed(f"{error.code}: {error}"))
        await store.persist(store.store.record_metrics, self._run.run, version, metrics, evaluated=True)
        self._facts.note(metrics)
        shown = {name: round(value, 4) for name, value in counted(metrics).items()}
        self._log.info("evaluated", version=version, **shown)
        for name, reason in missing(metrics).items():
            self._log.warning("a metric is missing", version=version, metric=name, reason=reason)
        return metrics

    async def _measure(self, version: int) -> dict[str, float | str]:
        services = self._services
        record = await services.store.persist(services.store.store.version, self._run.run, version)
        if not record.kept:
            return {}
        services.files.hold(self, [record.artifact.digest])
        try:
            return await self._measured(record)
        finally:
            services.files.hold(self, ())

    async def _measured(self, record: VersionRecord) -> dict[str, float | str]:
        services = self._services
        check = partial(services.files.check, record.artifact.digest)
        if not await services.store.obstacle.passed(lambda: asyncio.to_thread(check)):
            return {}
        job = EvaluateJob(
            run=self._run.run,
            spec_json=self._run.spec,
            model=services.files.path(record.artifact.digest),
            where="central",
            node_paths=services.data_paths,
            stall_s=parse_json(self._run.spec).training.stall_s,
            allow_path=services.allow_paths,
        )
        with services.metrics.phase("evaluating"):
            result = await services.worker.do(EVALUATE, job)
        return ratios(result.metrics)

    def answers(self, node: str, version: int) -> bool:
        """Whether a node was asked what it says now of a version; true once."""
        if self.asked.get(node) != version:
            return False
        del self.asked[node]
        return True

    async def note_node(self, node: str, version: int, totals: NodeMetrics) -> None:
        """A node has evaluated the last version; what it lacks is an event, for the sum is of the others'."""
        self._of_nodes[node] = totals
        if lacking := dict(list(missing(totals).items())[:MOST_NAMED]):
            store, now = self._services.store, self._services.clock()
            event = EventRecord(now, "metric-missing", self._run.run, node, {"version": version, "missing": lacking})
            await store.persist(store.store.add_event, event)
            self._log.warning("a node lacks a metric", node=node, version=version, missing=lacking)
        await self.note_merged(version, self._of_nodes.items())

    async def note_merged(self, version: int, metrics: Iterable[tuple[str, NodeMetrics]], prefix: str = "") -> None:
        """Put on record what several nodes, by name, measured of a version: the metrics that begin with `prefix`."""
        merged = merged_metrics(metrics, prefix)
        if merged:
            store = self._services.store
            await store.persist(store.store.record_metrics, self._run.run, version, merged, evaluated=False)
            self._facts.note(merged)


def of_accepted(updates: Iterable[UpdateRecord]) -> list[tuple[str, NodeMetrics]]:
    """What nodes say in the updates that count, by node."""
    return [(update.node, cast(NodeMetrics, update.metrics)) for update in updates if update.verdict == "accepted"]


def metrics_made(
    spec: RunSpec, totals: Mapping[str, tuple[float, float]], updates: Iterable[UpdateRecord]
) -> dict[str, float | str]:
    """What is known of a round's version as it is made: what its step measured, as (total, count) by name.

    In a run that only evaluates also what nodes measured: nothing comes after this version, so it is on record with it.
    """
    of_step: dict[str, float | str] = {name: total / count for name, (total, count) in totals.items()}
    return of_step | (merged_metrics(of_accepted(updates), EVALUATED) if spec.evaluation.only else {})


def merged_metrics(parts: Iterable[tuple[str, NodeMetrics]], prefix: str) -> dict[str, float | str]:
    """Merge several nodes' metrics whose names begin with `prefix` into ratios, or reasons, named `nodes/NAME`."""
    return {f"{NODES}{name}": value for name, value in merged(parts, prefix).items()}


def unevaluated_versions(store: Store, run: str, every: int, last: int) -> tuple[int, ...]:
    """The versions whose central evaluation is due and not done; `last`: the number of the run's last one. Blocking."""
    return tuple(
        version.version
        for version in store.versions(run)
        if version.kept and not version.evaluated and is_due(version.version, every, last=version.version == last)
    )


def reported_loss(metrics: NodeMetrics) -> float | None:
    """The mean training loss among an update's metrics; None if there is none, or it is not a number."""
    total, count = counted(metrics).get("loss", (0.0, 0.0))
    loss = total / count if count else math.nan
    return loss if math.isfinite(loss) else None
