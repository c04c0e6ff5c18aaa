"""Submissions: a specification is checked with the plug-ins installed here, and recorded, with the model that it names.

What comes with it, the file of a model, is received only when all else is right, and is nobody's until the run is on
record: whatever ends a submission before leaves nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from covey.artifact import Artifact
from covey.coordinator.admin.access.callers import Caller
from covey.coordinator.admin.access.own_study import in_own_study, require_free_name, require_own_study
from covey.coordinator.runs.first_model import FirstModelServices, add_run, require_bounds
from covey.coordinator.runs.layouts import moved_in_words, refuse_oversized
from covey.coordinator.runs.offers import STALL_S
from covey.coordinator.runs.ports import Worker
from covey.coordinator.runs.retention import Retention
from covey.coordinator.runs.schedule.scheduler import MODEL_BYTES, Scheduler
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import Studies
from covey.driver.background import Background
from covey.errors import DiskFull, SpecError
from covey.protos import admin_pb2 as pb
from covey.spec import RunSpec, parse_json, parse_toml, written_in
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord, RunRecord
from covey.wire.transfers.streams import receive
from covey.worker.jobs.operations import DESCRIBE
from covey.worker.jobs.runs import DescribeJob

log = structlog.get_logger(room="coordinator")
MAX_SPEC_BYTES = 1 << 20
MOST_TIMES, MORE_BYTES = 4, 16 << 20
"""A file with a model has tied weights under all names, and a header of its own: so many times a version's size, and
so much more, may come."""
KEPT_BOUND = "run {} has it on record; of [data], [training] and [evaluation] nodes of this version compute no more"
"""Of a key above its bound, as a run that is continued has it."""


@dataclass(frozen=True)
class SubmissionServices:
    """What submissions are given: see `covey.coordinator.admin.service.AdminServices`."""

    store: StoreThread
    files: ArtifactFiles
    worker: Worker
    scheduler: Scheduler
    background: Background
    retention: Retention
    studies: Studies
    now: Callable[[], float]
    allow_paths: bool = False
    data_paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """A file that comes with a submission.

    Attributes:
        artifact: As it was announced.
        chunks: Its chunks, of 1 MiB each but for the last one.
    """

    artifact: Artifact
    chunks: AsyncIterator[memoryview]


@dataclass(frozen=True)
class Submission:
    """One that was found to be right, and is not recorded yet.

    Attributes:
        caller: Submits it.
        spec: Its specification.
        record: The run.
        noted: What the worker said of it that goes on record.
        told: What is to be said of it.
    """

    caller: Caller
    spec: RunSpec
    record: RunRecord
    noted: Mapping[str, object]
    told: str


class Submissions:
    """Takes submissions.

    Args:
        services: What it is given.
    """

    def __init__(self, services: SubmissionServices) -> None:
        self._services, self._store = services, services.store.store
        self._turn = asyncio.Lock()
        """Held while the worker looks at a submission: the others wait here, not in the worker's queue."""

    async def check(self, request: pb.SubmitRunRequest, caller: Caller, model: Artifact | None = None) -> Submission:
        """Look at a specification, and at the size of the model that is announced with it.

        Raises:
            SpecError: It is wrong, or what it asks for cannot work together.
            IdentityError, NotFound, Conflict: As `covey.coordinator.admin.access.own_study` says.
            LimitExceeded, CorruptChunk: The model is far larger than one of its task can be, or is announced wrongly.
            DiskFull: There is no room for it.
            CoveyError: As the worker says.
        """
        env = self._services
        if len(request.spec_toml) + len(request.spec_json) > MAX_SPEC_BYTES:
            raise SpecError(f"the specification is larger than {MAX_SPEC_BYTES} bytes")
        given, parse = (request.spec_json, parse_json) if request.spec_json else (request.spec_toml, parse_toml)
        spec = await env.store.call(in_own_study, self._store, env.studies, parse(given, later=True), caller)
        above = await env.store.call(require_bounds, self._store, spec)
        env.studies.require_enough(spec.study, spec.min_nodes)
        text, written = spec.to_json(), written_in(request.spec_toml)
        async with self._turn:
            job = DescribeJob(text, env.allow_paths, data_paths=env.data_paths, submitted=True, written=written)
            description = await env.worker.do(DESCRIBE, job)
        known, takes = await env.store.call(self._store.nodes), partial(env.studies.takes, spec.study)
        active = [node.node for node in known if node.state == "active" and takes(node.node)]
        spec.task.require_known(active)
        spec.evaluation.require_known(active)
        refuse_oversized(text, description, len(active))
        told = moved_in_words(spec, description, active, allow_path=env.allow_paths)
        if model is not None:
            model.validate(MOST_TIMES * description.model_bytes + MORE_BYTES)
            if model.size_bytes > (free := env.files.free_bytes()):
                raise DiskFull(f"the model has {model.size_bytes} bytes, and {free} are free on the coordinator")
        record = RunRecord(secrets.token_hex(6), spec.name, spec.mode, text, spec.seed, "queued", "", env.now())
        kept = [f"{line}: {KEPT_BOUND.format(spec.model.run[0])}" for line in above]
        notes = "; ".join(filter(None, (told, *kept, *description.notes)))
        noted = description.noted() | ({MODEL_BYTES: description.model_bytes} if description.model_bytes else {})
        return Submission(caller, spec, record, noted, notes)

    async def queue(self, submission: Submission, sent: Sent | None = None) -> None:
        """Put a submission on record, with the model that it begins with.

        Whoever waits may go once the model is here: the worker is at work on files that nobody else may have meanwhile,
        and a run that is on record is also taken up.

        Raises:
            SpecError, IdentityError, Conflict: What `check` found holds no more.
            CorruptChunk, TransferError, Stalled: The model did not come as it was announced.
            CoveyError: As the worker, and `add_run`, say.
        """
        model = await self._received(sent) if sent is not None else None
        await asyncio.shield(self._services.background.spawn(self._record(submission, model)))

    async def _record(self, submission: Submission, model: Path | None) -> None:
        env = self._services
        try:
            async with self._turn:
                admit = partial(self._admit, submission)
                await env.store.call(admit)
                services = FirstModelServices(env.store, env.files, env.worker, env.allow_paths, env.retention, admit)
                record, spec = await add_run(services, submission.record, submission.spec, model)
        finally:
            if model is not None:
                env.files.discard(model)
        detail = {"by": submission.caller.name, **submission.noted, **spec.model.model_dump(exclude_defaults=True)}
        event = EventRecord(record.submitted_at, "run-submitted", record.run, detail=detail)
        await env.store.call(self._store.add_event, event)
        log.info("run submitted", run=record.run, name=spec.name, by=submission.caller.name)
        env.scheduler.wake()

    def _admit(self, submission: Submission) -> None:
        """See that what was found when it was checked still holds: of its study, and of its name. Blocking."""
        studies, spec, caller = self._services.studies, submission.spec, submission.caller
        require_own_study(studies, spec.study, replace(caller, studies=studies.roles_of(caller.name)))
        studies.require_enough(spec.study, spec.min_nodes)
        require_free_name(self._store, spec)

    async def _received(self, sent: Sent) -> Path:
        """Receive a file, whole and checked, into one that is the caller's to discard."""
        artifact, files = sent.artifact, self._services.files
        path = files.scratch(artifact.size_bytes)
        try:
            spool = await asyncio.to_thread(files.begin_scratch, path, artifact)
            try:
                await receive(sent.chunks, spool, offset=0, stall_s=STALL_S)
            finally:
                spool.abandon()
        except BaseException:
            files.discard(path)
            raise
        return path
