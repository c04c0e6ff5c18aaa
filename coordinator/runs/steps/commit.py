"""From a job's result to what is committed: the files in place, and the signed, chained statement."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from covey.coordinator.runs.ports import Files, RunServices
from covey.errors import WorkerError
from covey.parts import PartFile
from covey.storage.record.contract import StepRecord, UpdateRecord, VersionRecord
from covey.wire.identities.signing import CommitStatement, CommitVerdict
from covey.worker.jobs.steps import StepJob, StepResult


@dataclass(frozen=True)
class MadeStep:
    """A step that was made, and is to be committed.

    Attributes:
        job: What the worker was asked.
        result: What came out.
        record: The step, as it is to be recorded.
        judged: The updates that were judged, with their verdicts.
        version: What it made.
    """

    job: StepJob
    result: StepResult
    record: StepRecord
    judged: Sequence[UpdateRecord]
    version: VersionRecord | None = None


def signed_version(
    services: RunServices,
    base: VersionRecord,
    result: StepResult,
    verdicts: Sequence[CommitVerdict],
    *,
    round: int,
    metrics: Mapping[str, float | str] | None = None,
    collected: Sequence[PartFile] = (),
) -> VersionRecord:
    """The version after `base`, with its signed statement, which is chained to the one before.

    `collected` are the nodes' own files that it keeps.

    Raises:
        WorkerError: The result has no file.
    """
    if result.artifact is None:
        raise WorkerError("the worker has aggregated, but made no file")
    state = (*(file.part for file in result.state), *collected)
    statement = CommitStatement(
        federation=services.federation,
        run=base.run,
        round=round,
        version=base.version + 1,
        model_sha256=result.model_sha256,
        artifact=result.artifact.digest,
        parent=hashlib.sha256(base.statement).hexdigest() if base.statement else "",
        verdicts=tuple(verdicts),
        state=tuple(part.artifact.digest for part in state),
        covey="commit/2",
    ).to_bytes()
    return VersionRecord(
        run=base.run,
        version=base.version + 1,
        model_sha256=result.model_sha256,
        artifact=result.artifact,
        created_at=services.now(),
        parent_sha256=base.model_sha256,
        state=state,
        statement=statement,
        signature=services.signer.sign(statement),
        metrics=dict(metrics or {}),
    )


async def secure_files(services: RunServices, step: MadeStep) -> None:
    """Have all files of what a step made where files last, before it is recorded; waits while that is away. Repeatable.

    Not in the record's thread: nobody else waits for it.
    """
    await services.store.obstacle.passed(lambda: asyncio.to_thread(_secure, services.files, step))


def hold_version(files: Files, version: VersionRecord) -> None:
    """The version that its run goes on from stays at hand: it is also read where nobody can wait for it."""
    files.hold(version.run, {version.artifact.digest, *(part.artifact.digest for part in version.state)})


def _secure(files: Files, step: MadeStep) -> None:
    if step.result.artifact is None:
        return
    files.secure(step.result.artifact, step.job.out)
    for part in step.result.state:
        files.secure(part.artifact, part.path)
    for kept in step.version.state if step.version is not None else ():
        files.secure(kept.artifact)


def adopt_files(files: Files, job: StepJob, result: StepResult) -> None:
    """Put what the worker wrote under its final names, durably. Repeatable."""
    if result.artifact is None:
        return
    files.adopt(job.out, result.artifact)
    for part in result.state:
        files.adopt(part.path, part.artifact)


def discard_scratch(files: Files, job: StepJob, result: StepResult | None = None) -> None:
    """Drop the files of a job that are not those of a version: all, if there is no result. Repeatable."""
    adopted: set[Path] = set()
    if result is not None and result.artifact is not None:
        adopted = {job.out, *(part.path for part in result.state)}
    for path in {job.out, *job.out_state.values()} - adopted:
        files.discard(path)
