"""The `--json` output: which fields each thing has (stable), and how messages become plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

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
)
RUN_DETAIL_FIELDS = (*RUN_FIELDS, "spec", "roster")
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
)
VERSION_FIELDS = ("version", "model_sha256", "digest", "bytes", "metrics", "created_at", "kept")
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
)
EVENT_FIELDS = ("at", "kind", "run", "node", "detail")
PROGRESS_FIELDS = ("node", "phase", "step", "steps", "loss", "seconds")
STATUS_FIELDS = ("version", "federation", "state", "nodes_connected", "current_run", "store")
_JSON_TEXT = frozenset({"metrics", "numbers", "detail", "spec"})
_TIMES = frozenset({"submitted_at", "started_at", "ended_at", "committed_at", "received_at", "last_seen_at"})


def plain(message: Message, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a message: JSON text parsed, lists as lists, a time that has not come yet as None."""
    return {name: _value(name, getattr(message, name)) for name in names}


def plain_list(messages: Iterable[Message], names: Sequence[str]) -> list[dict[str, Any]]:
    """The same fields of several messages."""
    return [plain(message, names) for message in messages]


def plain_version(message: Any) -> dict[str, Any]:
    """A version (`VERSION_FIELDS`), with the digest and size of its file."""
    values = plain(message, ("version", "model_sha256", "metrics", "created_at", "kept"))
    artifact = {"digest": message.artifact.digest, "bytes": message.artifact.size_bytes}
    return {name: {**values, **artifact}[name] for name in VERSION_FIELDS}


def _value(name: str, value: Any) -> Any:
    if name in _TIMES:
        return value or None
    if name in _JSON_TEXT:
        return _finite(json.loads(value or "{}"))
    if isinstance(value, str | bool | int | float):
        return _finite(value)
    return list(value)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
