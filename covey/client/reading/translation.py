"""From the admin service's messages to values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from covey.client.audit.rows import AuditedRun, row_in
from covey.client.audit.signed import Commit, SignedRecord, SignedUpdate
from covey.client.values import (
    Change,
    Event,
    Node,
    NodeDetail,
    NodeProgress,
    NodeWork,
    Round,
    RoundDetail,
    Run,
    Update,
    Version,
)
from covey.metrics import counted, missing
from covey.protos import admin_pb2 as pb
from covey.texts import printable
from covey.wire.artifacts import artifact_from

V = TypeVar("V")
MISSING = "missing"
"""The field with the metrics that have no value."""
_JSON_TEXT = frozenset({"metrics", "numbers", "detail", "spec"})
_TIMES = frozenset({"submitted_at", "started_at", "ended_at", "committed_at", "received_at", "last_seen_at", "since"})


def value_of(kind: type[V], message: Message) -> V:
    """A flat message as a value of a dataclass, whose fields are called as the message's.

    JSON text is parsed, lists become tuples, and a time that has not come yet is None. Metrics that are missing are
    told apart from those that have a value.
    """
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    values = {name: _plain(name, getattr(message, name)) for name in names if name != MISSING}
    return kind(**values | (_split(values["metrics"]) if MISSING in names else {}))


def _split(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"metrics": counted(metrics), MISSING: missing(metrics)}


def values_of(kind: type[V], messages: Iterable[Message]) -> tuple[V, ...]:
    """Several messages, as `value_of`."""
    return tuple(value_of(kind, message) for message in messages)


def _plain(name: str, value: Any) -> Any:
    if name in _TIMES:
        return value or None
    if name in _JSON_TEXT:
        return json.loads(value or "{}")
    if name == "work":
        return values_of(NodeWork, value)
    if isinstance(value, str):
        return printable(value)
    return value if isinstance(value, bytes | bool | int | float) else tuple(value)


def version_of(message: pb.Version) -> Version:
    """A version; its file's announcement is not checked."""
    return Version(
        message.version,
        message.model_sha256,
        artifact_from(message.artifact),
        created_at=message.created_at,
        kept=message.kept,
        members=tuple(message.members),
        members_count=message.members_count,
        **_split(json.loads(message.metrics or "{}")),
    )


def detail_of(message: pb.RoundDetail) -> RoundDetail:
    """A round with its updates."""
    version = version_of(message.version) if message.HasField("version") else None
    return RoundDetail(
        value_of(Round, message.round),
        values_of(Update, message.updates),
        version,
        values_of(NodeProgress, message.nodes),
        bytes_resent_up=message.resent_up,
        bytes_resent_down=message.resent_down,
        nodes_count=max(message.nodes_count, len(message.nodes)),
    )


def change_of(message: pb.RunStatus) -> Change:
    """What changed of a run."""
    return Change(
        value_of(Run, message.run),
        values_of(Round, message.rounds),
        values_of(NodeProgress, message.nodes),
        max(message.nodes_count, len(message.nodes)),  # older coordinators name all, and do not count them
    )


def node_detail_of(message: pb.NodeDetail) -> NodeDetail:
    """A node with its events."""
    return NodeDetail(value_of(Node, message.node), values_of(Event, message.events))


def audited_of(messages: Iterable[pb.AuditReply]) -> AuditedRun:
    """Every row that an audit looks at, from the messages that they came in."""
    run = AuditedRun()
    for message in messages:
        run.coordinator_key = message.coordinator_key or run.coordinator_key
        for row in message.rows:
            run.add(row.table, row_in(row.values))
    return run


def signed_of(messages: Iterable[pb.AuditReply]) -> SignedRecord:
    """All that is signed, from the messages that it came in."""
    key, commits, updates = b"", list[Commit](), list[SignedUpdate]()
    for message in messages:
        key = message.coordinator_key or key
        commits += values_of(Commit, message.commits)
        updates += values_of(SignedUpdate, message.updates)
    return SignedRecord(key, tuple(commits), tuple(updates))
