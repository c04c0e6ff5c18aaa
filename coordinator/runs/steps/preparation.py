"""What a run needs before its mode can take it up: a checked specification, and a first version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from covey.coordinator.runs.ports import RunServices
from covey.layout import Layout
from covey.parts import DeclaredPart, sent
from covey.spec import RunSpec, parse_json
from covey.storage.record.contract import RunRecord, VersionRecord
from covey.worker.jobs.operations import DESCRIBE, INITIAL
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob


@dataclass(frozen=True)
class Prepared:
    """A run that its mode can take up."""

    run: RunRecord
    spec: RunSpec
    layout: Layout
    newest: VersionRecord
    description: Description
    """What the worker said of the specification."""

    def slot_bytes(self) -> dict[str, int]:
        """The files that a version has beside the model, and about how large they are."""
        return dict(self.description.slots)

    def sent(self, phase: int = 1) -> tuple[DeclaredPart, ...]:
        """The parts that each node sends in a phase of a round, in the order of its statement."""
        return sent(self.description.parts, phase)

    @property
    def evaluates_centrally(self) -> bool:
        """Whether versions are evaluated by the coordinator's worker."""
        return self.description.central and self.spec.evaluation.where != "nodes"

    @property
    def evaluates_on_nodes(self) -> bool:
        """Whether versions are evaluated by the nodes."""
        return self.spec.evaluation.where != "central" and not self.spec.evaluation.only

    def measured_in(self, round: int) -> int:
        """The version of which the updates of a round say how good it is: the one before that which it makes.

        A run that only evaluates makes the same model again, and is about that.
        """
        return round if self.spec.evaluation.only else round - 1


async def prepare(services: RunServices, run: RunRecord) -> Prepared:
    """Bring a queued or running run to where its mode can take it up; makes version 0 if there is none.

    Raises:
        CoveyError: The task, rule, codec or optimizer cannot be used here.
    """
    spec = parse_json(run.spec)
    describe_job = DescribeJob(run.spec, services.allow_paths, data_paths=services.data_paths)
    description = await services.worker.do(DESCRIBE, describe_job)
    if run.state == "queued":
        run = await _start(services, run, spec)
    newest = await services.store.persist(services.store.store.version, run.run, -1)
    return Prepared(run, spec, Layout.from_json(run.layout), newest, description)


async def _start(services: RunServices, run: RunRecord, spec: RunSpec) -> RunRecord:
    if spec.model.initial:
        return await _start_with_given(services, run, spec)
    out = services.files.scratch(0)
    job = InitialJob(run.run, run.spec, out, services.allow_paths)
    initial = await services.store.obstacle.passed(lambda: services.worker.do(INITIAL, job))
    await services.store.obstacle.passed(lambda: asyncio.to_thread(services.files.secure, initial.artifact, out))
    now = services.now()
    first = VersionRecord(run.run, 0, initial.model_sha256, initial.artifact, now)
    parts = spec.data.parts or 0

    def record_first() -> None:
        """In the record's thread, where files are let go: another run may just be done with the same first model."""
        services.files.adopt(out, initial.artifact)
        services.store.store.start_run(run.run, (), parts, initial.layout, first, now)

    await services.store.persist(record_first)
    return replace(run, state="running", started_at=now, layout=initial.layout, parts=parts)


async def _start_with_given(services: RunServices, run: RunRecord, spec: RunSpec) -> RunRecord:
    """The run was recorded with its first model."""
    store, now, parts = services.store, services.now(), spec.data.parts or 0
    first = await store.persist(store.store.version, run.run, 0)
    await store.persist(store.store.start_run, run.run, (), parts, run.layout, first, now)
    return replace(run, state="running", started_at=now, parts=parts)


async def expected_nodes(services: RunServices) -> dict[str, float]:
    """The nodes that are here or may come back, with the time (of the machines' clock) at which each was last seen.

    Who was seen "later" than now, before a clock was set back, was seen now: nobody is waited for until then.
    """
    return {
        node.node: min(max(node.last_seen_at, services.started_at), services.clock())
        for node in await services.store.persist(services.store.store.nodes)
        if node.state == "active" and node.last_seen_at is not None  # else it only enrolled
        if services.nodes.takes(node.node)
    } | dict.fromkeys(services.nodes.nodes(), services.clock())
