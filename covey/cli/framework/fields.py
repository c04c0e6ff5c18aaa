"""The `--json` output: which fields each thing has (stable), and how values become JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from covey.client.values import NodeWork

RUN_FIELDS = (
    "run",
    "name",
    "mode",
    "state",
    "reason",
    "rounds_committed",
    "rounds",
    "model_version",
    "model_sha256",
    "metrics",
    "submitted_at",
    "started_at",
    "ended_at",
    "updates_decided",
    "updates",
    "steps_done",
    "steps",
    "missing",
    "parent",
    "study",
)
RUN_DETAIL_FIELDS = (*RUN_FIELDS, "spec", "roster", "roster_size")
ROUND_FIELDS = (
    "round",
    "state",
    "started_at",
    "committed_at",
    "seconds",
    "accepted",
    "rejected",
    "bytes_received",
    "bytes_sent",
    "metrics",
    "attempt",
    "reason",
    "invited",
    "base_version",
    "version",
    "arrival",
    "declined",
    "lost",
    "late",
    "received",
    "last_reason",
    "phase",
    "missing",
)
CONTRIBUTION_FIELDS = (
    "node",
    "asked",
    "accepted",
    "rejected",
    "declined",
    "lost",
    "late",
    "last_round",
    "last_verdict",
    "last_reason",
)
UPDATE_FIELDS = (
    "node",
    "verdict",
    "reason",
    "digest",
    "bytes",
    "weight",
    "share",
    "numbers",
    "metrics",
    "received_at",
    "base_sha256",
    "key_id",
    "code",
    "phase",
    "missing",
)
VERSION_FIELDS = ("version", "model_sha256", "digest", "bytes", "metrics", "created_at", "kept", "missing")
NODE_FIELDS = (
    "node",
    "state",
    "enrolled_at",
    "last_seen_at",
    "certificate_expires_at",
    "version",
    "device",
    "tasks",
    "accepted",
    "rejected",
    "drill",
    "declined",
    "lost",
    "late",
    "last_reason",
    "work",
    "max_runs",
    "memory_bytes",
    "gpu_memory_bytes",
)
GOSSIP_PART_FIELDS = (
    "node",
    "state",
    "reason",
    "address",
    "incarnation",
    "step",
    "weight",
    "metrics",
    "trained_s",
    "blocked_s",
    "model_sha256",
    "filters",
    "received_at",
)
CHECKED_FIELDS = (
    "spec (whole, with its defaults)",
    "notes",
    "waits_for",
    "exchange",
    "privacy",
    "model_bytes",
    "nodes (a list: node, is_connected, refusal, remark)",
    "nodes_count",
    "ready",
)
GOSSIP_MASS_FIELDS = ("live", "in_flight", "minted", "lost", "uncertain", "findings", "weighs")
EVENT_FIELDS = ("at", "kind", "run", "node", "detail")
PROGRESS_FIELDS = ("node", "phase", "step", "steps", "loss", "seconds", "since", "bytes_received", "bytes_sent")
WORK_FIELDS = ("run", "name", "round", "phase", "step", "steps", "since", "bytes_received", "bytes_sent")
STATUS_FIELDS = (
    "version",
    "federation",
    "state",
    "nodes_connected",
    "current_run",
    "active_runs",
    "store",
    "waits_for",
)


def plain(value: object, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a value: mappings and lists as JSON has them, a time that has not come yet as None."""
    return {name: _finite(getattr(value, name)) for name in names}


def plain_list(values: Iterable[object], names: Sequence[str]) -> list[dict[str, Any]]:
    """The same fields of several values."""
    return [plain(value, names) for value in values]


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, NodeWork):
        return plain(value, WORK_FIELDS)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
