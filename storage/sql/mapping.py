"""Between the contract's records and the tables' rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.storage.record.contract import (
    DecisionRecord,
    EventRecord,
    NodeRecord,
    PartRecord,
    PolicyStateRecord,
    RoundRecord,
    RunRecord,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)

Values = dict[str, Any]
AnyRow = Row[*tuple[Any, ...]]


def parts_to_json(parts: Sequence[PartRecord]) -> list[dict[str, Any]]:
    """Parts as they lie in a column: the table of chunk digests in base64."""
    return [{"name": part.name, "codec": part.codec, **artifact_to_json(part.artifact)} for part in parts]


def parts_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[PartRecord, ...]:
    """The inverse of `parts_to_json`."""
    return tuple(PartRecord(row["name"], row["codec"], artifact_from_json(row)) for row in rows)


def run_values(record: RunRecord) -> Values:
    """A run as a row."""
    return vars(record) | {"roster": list(record.roster)}


def run_record(row: AnyRow) -> RunRecord:
    """A row as a run."""
    values = dict(row._mapping)
    return RunRecord(**values | {"roster": tuple(values["roster"])})


_COUNTED = frozenset({"accepted", "rejected", "metrics"})


def round_values(record: RoundRecord) -> Values:
    """A round as a row; what is counted from other tables is left out."""
    values = {name: value for name, value in vars(record).items() if name not in _COUNTED}
    return values | {"invited": list(record.invited)}


def round_record(row: AnyRow) -> RoundRecord:
    """A row, with its counts and its version's metrics, as a round."""
    values = dict(row._mapping)
    counts = {"accepted": int(values["accepted"] or 0), "rejected": int(values["rejected"] or 0)}
    return RoundRecord(**values | counts | {"invited": tuple(values["invited"]), "metrics": values["metrics"] or {}})


def update_values(record: UpdateRecord) -> Values:
    """An update or outcome as a row."""
    return vars(record) | {
        "parts": parts_to_json(record.parts),
        "numbers": dict(record.numbers),
        "metrics": dict(record.metrics),
    }


def update_record(row: AnyRow) -> UpdateRecord:
    """A row as an update or outcome."""
    values = dict(row._mapping)
    return UpdateRecord(**values | {"parts": parts_from_json(values["parts"])})


def decision_values(record: DecisionRecord) -> Values:
    """A decision as a row."""
    return vars(record) | {"verdicts": [dict(verdict) for verdict in record.verdicts]}


def decision_record(row: AnyRow) -> DecisionRecord:
    """A row as a decision."""
    values = dict(row._mapping)
    return DecisionRecord(**values | {"verdicts": tuple(values["verdicts"])})


_PINS = ("pinned_updates", "pinned_versions")


def policy_state_values(record: PolicyStateRecord) -> Values:
    """A policy's state as a row."""
    return vars(record) | {name: list(getattr(record, name)) for name in _PINS}


def policy_state_record(row: AnyRow) -> PolicyStateRecord:
    """A row as a policy's state."""
    values = dict(row._mapping)
    return PolicyStateRecord(**values | {name: tuple(values[name]) for name in _PINS})


def version_values(record: VersionRecord) -> Values:
    """A version as a row."""
    values = dict(vars(record))
    artifact: Artifact = values.pop("artifact")
    return values | {
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        "chunk_sha256": artifact.chunk_sha256,
        "state": parts_to_json(record.state),
        "metrics": dict(record.metrics),
    }


def version_record(row: AnyRow) -> VersionRecord:
    """A row as a version."""
    values = dict(row._mapping)
    artifact = Artifact(values.pop("digest"), values.pop("size_bytes"), values.pop("chunk_sha256"))
    return VersionRecord(artifact=artifact, **values | {"state": parts_from_json(values["state"])})


def node_values(record: NodeRecord) -> Values:
    """An identity as a row of `nodes`; its key has a row of its own."""
    left_out = ("signing_key", "accepted", "rejected")
    values = {name: value for name, value in vars(record).items() if name not in left_out}
    return values | {"tasks": list(record.tasks)}


def node_record(row: AnyRow) -> NodeRecord:
    """A row, with its key and its counts, as an identity."""
    values = dict(row._mapping)
    values.pop("token")
    counts = {"accepted": int(values["accepted"] or 0), "rejected": int(values["rejected"] or 0)}
    return NodeRecord(
        **values | counts | {"tasks": tuple(values["tasks"]), "signing_key": values["signing_key"] or b""}
    )


def token_record(row: AnyRow) -> TokenRecord:
    """A row as a token."""
    return TokenRecord(**row._mapping)


def event_values(record: EventRecord) -> Values:
    """An event as a row."""
    return vars(record) | {"detail": dict(record.detail)}


def event_record(row: AnyRow) -> EventRecord:
    """A row as an event."""
    values = dict(row._mapping)
    values.pop("id")
    return EventRecord(**values)
