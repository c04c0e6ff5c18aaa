"""Between the contract's records and the tables' rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, Table

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.storage.record.contract import (
    EventRecord,
    NodeRecord,
    PartRecord,
    RedemptionRecord,
    RoundRecord,
    RunRecord,
    SignedUpdateRecord,
    StepRecord,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
)
from covey.storage.sql.schema import assignments, groups

Values = dict[str, Any]
AnyRow = Row[*tuple[Any, ...]]
PHASE = 1
"""The first phase: the only one of an asynchronous run's assignment, and the one in which a round's nodes train."""
COUNTED_VERDICTS = ("accepted", "rejected", "declined", "lost", "late", "received")
"""Verdicts of which each round says how many nodes have them."""
TRAIN = "train"
"""Kind of every assignment so far."""
_COUNTED = frozenset({*COUNTED_VERDICTS, "last_reason", "metrics"})


def _columns(table: Table, names: Iterable[str], number: str) -> tuple[ColumnElement[Any], ...]:
    """The columns of a record's fields, of which `round` is the column `number`."""
    return tuple(table.c[number].label("round") if name == "round" else table.c[name] for name in names)


ROUND_COLUMNS = _columns(groups, [f.name for f in fields(RoundRecord) if f.name not in _COUNTED], "number")
"""A group as `RoundRecord` has it, but for what is counted or comes from its version."""
UPDATE_COLUMNS = _columns(assignments, [f.name for f in fields(UpdateRecord)], "group_number")
"""An assignment's answer as `UpdateRecord` has it."""


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


def round_values(record: RoundRecord) -> Values:
    """A round as a row of `groups`; what is counted from other tables is left out."""
    values = {name: value for name, value in vars(record).items() if name not in _COUNTED}
    values["number"] = values.pop("round")
    return values | {"invited": list(record.invited)}


def round_record(row: AnyRow, last_reason: str = "") -> RoundRecord:
    """A row, with its counts and its version's metrics, as a round."""
    values = dict(row._mapping)
    values |= {"invited": tuple(values["invited"]), "metrics": values["metrics"] or {}}
    return RoundRecord(**values, last_reason=last_reason)


def update_values(record: UpdateRecord, attempt: int, base_version: int) -> Values:
    """An update or outcome as a row of `assignments`, with its group's attempt and base."""
    values = dict(vars(record))
    values["group_number"] = values.pop("round")
    return values | {
        "kind": TRAIN,
        "attempt": attempt,
        "base_version": base_version,
        "parts": parts_to_json(record.parts),
        "numbers": dict(record.numbers),
        "metrics": dict(record.metrics),
    }


def update_record(row: AnyRow) -> UpdateRecord:
    """A row (`UPDATE_COLUMNS`) as an update or outcome."""
    values = dict(row._mapping)
    return UpdateRecord(**values | {"parts": parts_from_json(values["parts"])})


def signed_record(row: AnyRow) -> SignedUpdateRecord:
    """A row (`UPDATE_COLUMNS`, base_version, signing_key) as a signed update."""
    values = dict(row._mapping)
    return SignedUpdateRecord(
        **values | {"parts": parts_from_json(values["parts"]), "signing_key": values["signing_key"] or b""}
    )


def step_values(record: StepRecord) -> Values:
    """A step as a row, but for what is counted."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(record).items()}
    del values["accepted"], values["rejected"]
    return values | {
        "cause": [list(answers) for answers in record.cause],
        "verdicts": [dict(verdict) for verdict in record.verdicts],
        "opens": [dict(assignment) for assignment in record.opens],
    }


_TUPLES = ("verdicts", "pinned_updates", "pinned_versions", "opens")


def step_record(row: AnyRow) -> StepRecord:
    """A row as a step."""
    values = dict(row._mapping)
    cause = tuple((group, phase) for group, phase in values["cause"])
    return StepRecord(**values | {"cause": cause} | {name: tuple(values[name]) for name in _TUPLES})


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
        "measured": bool(record.metrics),
    }


def version_record(row: AnyRow) -> VersionRecord:
    """A row as a version."""
    values = dict(row._mapping)
    values.pop("measured")
    artifact = Artifact(values.pop("digest"), values.pop("size_bytes"), values.pop("chunk_sha256"))
    return VersionRecord(artifact=artifact, **values | {"state": parts_from_json(values["state"])})


_NODE_COUNTS = ("accepted", "rejected", "declined", "lost", "late")


def node_values(record: NodeRecord) -> Values:
    """An identity as a row of `nodes`; its key has a row of its own."""
    left_out = ("signing_key", *_NODE_COUNTS, "last_reason")
    values = {name: value for name, value in vars(record).items() if name not in left_out}
    return values | {"tasks": list(record.tasks)}


def node_record(row: Mapping[str, Any]) -> NodeRecord:
    """A row, with its key and its counts, as an identity."""
    values = {name: value for name, value in row.items() if name != "token"}
    key = values["signing_key"] or b""
    return NodeRecord(**values | {"tasks": tuple(values["tasks"]), "signing_key": key})


def token_values(record: TokenRecord) -> Values:
    """A token as a row; each of its uses has a row of its own."""
    return {name: value for name, value in vars(record).items() if name != "used"}


def token_record(row: AnyRow) -> TokenRecord:
    """A row, with the number of its uses, as a token."""
    return TokenRecord(**row._mapping)


def redemption_record(row: AnyRow) -> RedemptionRecord:
    """A row as a use of a token."""
    return RedemptionRecord(**row._mapping)


def event_values(record: EventRecord) -> Values:
    """An event as a row; it gets its number there."""
    values = {name: value for name, value in vars(record).items() if name != "id"}
    return values | {"detail": dict(record.detail)}


def event_record(row: AnyRow) -> EventRecord:
    """A row as an event."""
    return EventRecord(**row._mapping)
