"""From the store's records to the admin service's messages: for the daemon, and for reading offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from covey.coordinator.modes.registry import room_of
from covey.coordinator.runs.facts import NODE_PREFIX
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import (
    EventRecord,
    Json,
    NodeRecord,
    PolicyStateRecord,
    RoundRecord,
    RunRecord,
    UpdateRecord,
    VersionRecord,
)
from covey.wire.artifacts import artifact_message


def run_view(record: RunRecord, versions: Sequence[VersionRecord], state: PolicyStateRecord | None = None) -> pb.Run:
    """A run with what its versions (all of them, in order) say of its progress, and its policy's state, if it has one.

    `rounds_committed` is the number of versions made; an asynchronous run is not over after so many rounds (0), but
    after so many updates.
    """
    room = room_of(record.mode)
    asked = {room.counts: room.asked(record.spec)}
    newest = versions[-1] if versions else None
    evaluated = next((v for v in reversed(versions) if v.metrics), None)
    return pb.Run(
        run=record.run,
        name=record.name,
        mode=record.mode,
        state=record.state,
        reason=record.reason,
        rounds_committed=newest.version if newest else 0,
        rounds=asked.get("rounds", 0),
        updates=asked.get("updates", 0),
        updates_decided=state.decision if state else 0,
        model_version=newest.version if newest else 0,
        model_sha256=newest.model_sha256 if newest else "",
        metrics=_text(evaluated.metrics if evaluated else {}),
        submitted_at=record.submitted_at,
        started_at=record.started_at or 0.0,
        ended_at=record.ended_at or 0.0,
        spec=record.spec,
        roster=record.roster,
    )


def round_view(record: RoundRecord) -> pb.Round:
    """A round; `seconds` is from its start to its commit, 0 before that."""
    return pb.Round(
        round=record.round,
        state=record.state,
        attempt=record.attempt,
        started_at=record.started_at,
        committed_at=record.committed_at or 0.0,
        seconds=max(0.0, record.committed_at - record.started_at) if record.committed_at else 0.0,
        accepted=record.accepted,
        rejected=record.rejected,
        bytes_received=record.bytes_received,
        bytes_sent=record.bytes_sent,
        metrics=_text(record.metrics),
        reason=record.reason,
        invited=record.invited,
        base_version=record.base_version,
        version=record.version or 0,
        arrival=record.arrival or 0,
    )


def update_view(record: UpdateRecord) -> pb.Update:
    """What one node answered in a round."""
    return pb.Update(
        node=record.node,
        verdict=record.verdict,
        reason=record.reason,
        digest=record.digest,
        bytes=record.bytes,
        weight=record.weight,
        share=record.share,
        numbers=_text(record.numbers),
        metrics=_text(record.metrics),
        received_at=record.received_at or 0.0,
        base_sha256=record.base_sha256,
        key_id=record.key_id,
    )


def version_view(record: VersionRecord) -> pb.Version:
    """A committed version."""
    return pb.Version(
        version=record.version,
        model_sha256=record.model_sha256,
        artifact=artifact_message(record.artifact),
        metrics=_text(record.metrics),
        created_at=record.created_at,
        kept=record.kept,
    )


def commit_view(record: VersionRecord) -> pb.Commit:
    """The signed statement that made a version."""
    return pb.Commit(version=record.version, statement=record.statement, signature=record.signature)


def signed_view(record: UpdateRecord, signing_key: bytes, base_version: int) -> pb.SignedUpdate:
    """An update's signed statement, with the raw Ed25519 key that signed it, and the version its round started from."""
    return pb.SignedUpdate(
        round=record.round,
        node=record.node,
        statement=record.statement,
        signature=record.signature,
        signing_key=signing_key,
        verdict=record.verdict,
        kept=record.kept,
        base_version=base_version,
    )


def node_view(record: NodeRecord, connected: bool, drill: str = "") -> pb.Node:
    """A node; one that is neither evicted nor gone is `connected` or `away`. `drill`: as in `pb.Node`."""
    state: str = record.state
    if state == "active":
        state = "connected" if connected else "away"
    return pb.Node(
        node=record.node,
        drill=drill,
        state=state,
        enrolled_at=record.enrolled_at,
        last_seen_at=record.last_seen_at or 0.0,
        certificate_expires_at=record.certificate_expires_at,
        version=record.version,
        device=record.device,
        tasks=record.tasks,
        accepted=record.accepted,
        rejected=record.rejected,
    )


def event_view(record: EventRecord) -> pb.Event:
    """An event."""
    return pb.Event(at=record.at, kind=record.kind, run=record.run, node=record.node, detail=_text(record.detail))


def best_version(versions: Sequence[VersionRecord], metric: str, goal: Literal["max", "min"]) -> VersionRecord:
    """The kept version with the best value of a metric; of equals the newest.

    The coordinator's own evaluation counts; where it has none, that of the nodes.

    Raises:
        NotFound: No kept version was evaluated by this metric; the message lists those there are.
    """
    name = metric if any(metric in v.metrics for v in versions) else NODE_PREFIX + metric
    rated = [(v, _number(v.metrics.get(name))) for v in versions if v.kept]
    known = [(v, value) for v, value in rated if value is not None]
    if not known:
        names = ", ".join(sorted({key for v in versions for key in v.metrics})) or "none"
        raise NotFound(f"no kept version was evaluated by {metric!r} (known metrics: {names}); name a version")
    sign = 1.0 if goal == "max" else -1.0
    return max(known, key=lambda pair: (sign * pair[1], pair[0].version))[0]


def _number(value: object) -> float | None:
    finite = isinstance(value, int | float) and value == value and abs(value) != float("inf")
    return float(value) if finite else None  # type: ignore[arg-type]


def _text(values: Json) -> str:
    return json.dumps(dict(values), sort_keys=True)
