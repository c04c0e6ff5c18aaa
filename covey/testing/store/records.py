"""Records for the tests of a store: complete, each unlike every other one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from covey.artifact import Artifact, artifact_of
from covey.storage.record.contract import (
    NodeRecord,
    PartRecord,
    RedemptionRecord,
    RoundRecord,
    RunRecord,
    SignedUpdateRecord,
    StepRecord,
    Store,
    TokenRecord,
    UpdateRecord,
    VersionRecord,
    step_verdict,
)

NODES = ("ada", "bob", "cyd")
LAYOUT = '[["w","float32",[2],"model"]]'


def sha256(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def artifact(text: str) -> Artifact:
    """The artifact of a small file with this text."""
    return artifact_of([text.encode()])


def run_record(run: str = "run-1", **changes: Any) -> RunRecord:
    """A submitted run."""
    values: dict[str, Any] = {
        "name": f"name of {run}",
        "mode": "rounds",
        "spec": '{"seed":7}',
        "seed": 2**63 - 1,
        "state": "queued",
    }
    return RunRecord(run, **values | {"reason": "", "submitted_at": 1000.25} | changes)


def version_record(run: str, number: int, label: str = "", **changes: Any) -> VersionRecord:
    """A version with an optimizer state file; another label is another version."""
    name = f"{run} v{number}{label}"
    values: dict[str, Any] = {
        "model_sha256": sha256(name),
        "artifact": artifact(name),
        "created_at": 1000.5 + number,
        "parent_sha256": sha256(f"{run} v{number - 1}") if number else "",
        "state": (PartRecord("momentum", "none", artifact(f"{name} momentum")),) if number else (),
        "statement": f"statement of {name}".encode(),
        "signature": b"\x00\xff" * 32,
    }
    return VersionRecord(run, number, **values | changes)


def round_record(run: str, number: int, attempt: int = 1, **changes: Any) -> RoundRecord:
    """A round that collects."""
    started = 2000.0 + number
    values: dict[str, Any] = {
        "invited": NODES,
        "base_version": number - 1,
        "started_at": started,
        "attempt_at": started + attempt,
    }
    return RoundRecord(run, number, attempt, "collecting", **values | changes)


def update_record(run: str, number: int, node: str, label: str = "", **changes: Any) -> UpdateRecord:
    """A received update with two parts; another label is another update."""
    name = f"{run} r{number} {node}{label}"
    parts = tuple(PartRecord(part, "none", artifact(f"{name} {part}")) for part in ("model", "buffers"))
    values: dict[str, Any] = {
        "verdict": "received",
        "digest": sha256(name),
        "statement": f"statement of {name}".encode(),
        "signature": b"\xff\x00" * 32,
        "key_id": f"key-{node}",
        "base_sha256": sha256(f"{run} v{number - 1}"),
        "parts": parts,
        "bytes": 2**40,
        "weight": 0.1 + 0.2,
        "metrics": {"loss": [1.5, 10.0]},
        "received_at": 3000.125,
    }
    return UpdateRecord(run, number, node, **values | changes)


def outcome_record(run: str, number: int, node: str, verdict: Any, reason: str = "why") -> UpdateRecord:
    """An answer without an update."""
    return UpdateRecord(run, number, node, verdict, reason, received_at=3001.0)


def token_record(name: str = "ada", label: str = "", **changes: Any) -> TokenRecord:
    """An unused token."""
    values: dict[str, Any] = {"name": name, "role": "node", "created_at": 1.0, "expires_at": 3601.0}
    return TokenRecord(sha256(f"token {name}{label}"), **values | changes)


def node_record(node: str = "ada", key: str = "first", **changes: Any) -> NodeRecord:
    """An enrolled node."""
    values: dict[str, Any] = {
        "role": "node",
        "state": "active",
        "enrolled_at": 10.0,
        "certificate_serial": f"serial of {node}, {key}",
        "certificate_expires_at": 1e9,
        "signing_key": hashlib.sha256(f"{node} {key}".encode()).digest(),
        "key_id": sha256(f"{node} {key}")[:16],
    }
    return NodeRecord(node, **values | changes)


def enrol(store: Store, node: NodeRecord, label: str = "") -> RedemptionRecord:
    """Enrol a node with a token of its own."""
    token = token_record(node.node, label)
    store.add_token(token)
    return store.redeem_token(token.secret_sha256, sha256(f"csr {node.node}{label}"), b"PEM", node)


def start_run(store: Store, run: str = "run-1", roster: Sequence[str] = NODES) -> str:
    """A running run with version 0; returns its id."""
    store.add_run(run_record(run))
    store.start_run(run, roster, len(roster), LAYOUT, version_record(run, 0), 1001.0)
    return run


def commit(store: Store, run: str, number: int, verdicts: Sequence[UpdateRecord] = ()) -> VersionRecord:
    """Close and commit an open round; returns its version."""
    version = version_record(run, number)
    store.begin_aggregation(run, number)
    store.commit_step(commit_step_of(store, version, verdicts), verdicts, version, bytes_received=11, bytes_sent=22)
    return version


def commit_step_of(store: Store, version: VersionRecord, verdicts: Sequence[UpdateRecord] = ()) -> StepRecord:
    """The step by which the round that is aggregating makes a version; the run's next one."""
    run, number = version.run, version.version
    last, phase = store.last_step(run), next((r.phase for r in store.rounds(run) if r.round == number), 1)
    return StepRecord(
        run,
        last.number + 1 if last else 1,
        cause=((number, phase),),
        newest=number - 1,
        version=number,
        roster=len(store.run(run).roster),
        verdicts=tuple(map(step_verdict, verdicts)),
        decided_at=4000.0 + number,
    )


def play_round(store: Store, run: str, number: int, nodes: Sequence[str] = NODES) -> VersionRecord:
    """A whole round in which all nodes are accepted; returns its version."""
    store.open_round(round_record(run, number))
    updates = [update_record(run, number, node) for node in nodes]
    for update in updates:
        store.record_update(update)
    return commit(store, run, number, [accepted(update) for update in updates])


def accepted(update: UpdateRecord, share: float = 1 / 3) -> UpdateRecord:
    """The verdict on a good update."""
    return UpdateRecord(**vars(update) | {"verdict": "accepted", "share": share, "numbers": {"distance": 0.5}})


def without_key(update: SignedUpdateRecord) -> UpdateRecord:
    """The update without what an audit needs beside it."""
    return UpdateRecord(**{field.name: getattr(update, field.name) for field in fields(UpdateRecord)})


def files_of(record: UpdateRecord | VersionRecord) -> set[str]:
    """Digests of the files that a record needs."""
    parts = record.parts if isinstance(record, UpdateRecord) else record.state
    own = {record.artifact.digest} if isinstance(record, VersionRecord) else set()
    return own | {part.artifact.digest for part in parts}
