"""From the store's records to the admin service's messages: for the daemon, and for reading offline."""

from __future__ import annotations

import json

from covey.machines.places import Room
from covey.protos import admin_pb2 as pb
from covey.spec.mode import Mode
from covey.spec.modes import DEFAULT, MODES
from covey.storage.record.contract import (
    ContributionRecord,
    EventRecord,
    GossipMemberRecord,
    GossipStatementRecord,
    Json,
    NodeRecord,
    RoundRecord,
    RunRecord,
    RunSummary,
    SignedUpdateRecord,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)
from covey.wire.artifacts import artifact_message

MOST_NAMES = 1000
"""Of nodes in one view; of more their number is there, and pages have them."""


def run_view(record: RunRecord, summary: RunSummary, steps_done: int = 0) -> pb.Run:
    """A run and how far it is.

    `rounds_committed` is the number of versions made; a run that is counted in updates is not over after so many
    rounds (0), but after so many updates.
    """
    mode = MODES.get(record.mode, MODES[DEFAULT])
    asked = {mode.unit: _asked(record, mode)}
    return pb.Run(
        run=record.run,
        name=record.name,
        mode=record.mode,
        state=record.state,
        reason=record.reason,
        rounds_committed=summary.version,
        rounds=asked.get("rounds", 0),
        updates=asked.get("updates", 0),
        updates_decided=summary.updates_decided,
        steps=asked.get("steps", 0),
        steps_done=steps_done,
        model_version=summary.version,
        model_sha256=summary.model_sha256,
        metrics=_text(summary.metrics),
        submitted_at=record.submitted_at,
        started_at=record.started_at or 0.0,
        ended_at=record.ended_at or 0.0,
        spec=record.spec,
        roster=record.roster[:MOST_NAMES],
        roster_size=len(record.roster),
    )


def observes(record: RunRecord) -> bool:
    """Whether the coordinator only observes a run: what it knows of it is what nodes state."""
    return not MODES.get(record.mode, MODES[DEFAULT]).coordinated


def gossip_view(member: GossipMemberRecord, newest: GossipStatementRecord | None, *, late: bool) -> pb.GossipPart:
    """A node's part in a gossip run, with its newest statement if there is one; `late`: it came after the run began."""
    return pb.GossipPart(
        node=member.node,
        address=member.address,
        fingerprint=member.fingerprint,
        state=member.state,
        reason=member.reason,
        received_at=newest.received_at if newest is not None else 0.0,
        statement=newest.statement if newest is not None else b"",
        late=late,
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
        declined=record.declined,
        lost=record.lost,
        late=record.late,
        received=record.received,
        last_reason=record.last_reason,
        phase=record.phase,
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
        phase=record.phase,
        code=_code_of(record.statement),
    )


def _code_of(statement: bytes) -> str:
    """The digest of the code that an update's node says it ran; empty: it says none."""
    try:
        return str(json.loads(statement)["code"])
    except (ValueError, KeyError, TypeError):  # older, or none
        return ""


def version_view(record: VersionRecord) -> pb.Version:
    """A committed version."""
    return pb.Version(
        version=record.version,
        model_sha256=record.model_sha256,
        artifact=artifact_message(record.artifact),
        metrics=_text(record.metrics),
        created_at=record.created_at,
        kept=record.kept,
        members=list(record.members)[:MOST_NAMES],
        members_count=len(record.members),
    )


def commit_view(record: VersionRecord) -> pb.Commit:
    """The signed statement that made a version."""
    return pb.Commit(version=record.version, statement=record.statement, signature=record.signature)


def signed_view(record: SignedUpdateRecord) -> pb.SignedUpdate:
    """An update's signed statement, with what it takes to check it."""
    return pb.SignedUpdate(
        round=record.round,
        node=record.node,
        statement=record.statement,
        signature=record.signature,
        signing_key=record.signing_key,
        verdict=record.verdict,
        kept=record.kept,
        base_version=record.base_version,
    )


def node_view(record: NodeRecord, connected: bool, drill: str = "") -> pb.Node:
    """A node; one that is neither evicted nor gone is `connected` or `away`. `drill`: as in `pb.Node`."""
    state: str = record.state
    if state == "active" and record.role == "node":
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
        declined=record.declined,
        lost=record.lost,
        late=record.late,
        last_reason=record.last_reason,
    )


def add_room(view: pb.Node, room: Room) -> None:
    """What a connected node has for runs."""
    view.max_runs, view.memory_bytes, view.gpu_memory_bytes = room.max_runs, room.memory_bytes, room.gpu_bytes or 0


def contribution_view(record: ContributionRecord) -> pb.Contribution:
    """What one node did in a run."""
    return pb.Contribution(**vars(record))


TOKEN_ID_CHARS = 12
"""Of the hash of a token's secret: what names it among others, and says nothing of the secret."""


def token_view(record: TokenRecord, now: float) -> pb.TokenInfo:
    """A join token, without its secret."""
    if not record.uses_left:
        state = "used"
    elif not record.expires_at:
        state = "revoked"
    elif record.expires_at <= now:
        state = "expired"
    else:
        state = "in use" if record.used else "unused"
    return pb.TokenInfo(
        id=record.secret_sha256[:TOKEN_ID_CHARS],
        node=record.name,
        role=record.role,
        state=state,
        created_at=record.created_at,
        expires_at=record.expires_at,
        uses=record.uses,
        uses_left=record.uses_left,
    )


def event_view(record: EventRecord) -> pb.Event:
    """An event."""
    return pb.Event(at=record.at, kind=record.kind, run=record.run, node=record.node, detail=_text(record.detail))


def _asked(record: RunRecord, mode: Mode) -> int:
    """How many rounds or updates end a run; 0 where no specification is known."""
    return int(json.loads(record.spec).get(mode.section, {}).get(mode.count_key, 0)) if record.spec else 0


def _text(values: Json) -> str:
    return json.dumps(dict(values), sort_keys=True)
