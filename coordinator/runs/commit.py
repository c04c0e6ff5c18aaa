"""From an aggregation's result to what is committed: the version's file in place, and the signed, chained statement."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from covey.errors import WorkerError
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import RunRecord, UpdateRecord, VersionRecord
from covey.wire.signing import CommitStatement, CommitVerdict
from covey.worker.jobs.aggregation import AggregateJob, AggregateResult, RowVerdict

if TYPE_CHECKING:
    from covey.coordinator.environment import Environment


def commit_records(
    env: Environment,
    run: RunRecord,
    base: VersionRecord,
    job: AggregateJob,
    result: AggregateResult,
    updates: Sequence[UpdateRecord],
) -> tuple[VersionRecord, list[UpdateRecord]]:
    """The records that `commit_round` writes."""
    artifact, number = result.artifact, job.round
    if artifact is None:
        raise WorkerError("the worker has aggregated, but made no file")
    judged = {verdict.node: verdict for verdict in result.verdicts}
    verdicts = [_judged(update, judged[update.node]) for update in updates if update.node in judged]
    state = tuple(file.part for file in result.state)
    statement = CommitStatement(
        federation=env.federation,
        run=run.run,
        round=number,
        version=number,
        model_sha256=result.model_sha256,
        artifact=artifact.digest,
        parent=hashlib.sha256(base.statement).hexdigest() if base.statement else "",
        verdicts=tuple(CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share) for u in verdicts),
        state=tuple(part.artifact.digest for part in state),
    ).to_bytes()
    version = VersionRecord(
        run=run.run,
        version=number,
        model_sha256=result.model_sha256,
        artifact=artifact,
        created_at=env.now(),
        parent_sha256=base.model_sha256,
        state=state,
        statement=statement,
        signature=env.signing_key.sign(statement),
        metrics={name: total / count for name, (total, count) in result.metrics.items()},
    )
    return version, verdicts


def _judged(update: UpdateRecord, verdict: RowVerdict) -> UpdateRecord:
    return replace(
        update,
        verdict="accepted" if verdict.accepted else "rejected",
        reason=verdict.reason,
        share=verdict.share,
        numbers=dict(verdict.numbers),
    )


def adopt_files(files: ArtifactFiles, job: AggregateJob, result: AggregateResult) -> None:
    """Put what the worker wrote under its final names, durably. Repeatable."""
    if result.artifact is not None:
        files.adopt(job.out, result.artifact)
    for part in result.state:
        files.adopt(part.path, part.artifact)
