"""Reads a node's record: what a restart begins with, and what people want to know, also while the node runs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.errors import NotFound, StoreError
from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.events import Event
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.gossip.receipts import Receipt, SignedMass
from covey.node.gossip.ports import Noted, Saved, Snapshot
from covey.node.gossip.receipts import Kept
from covey.node.gossip.record.schema import (
    ONLY,
    VERSION,
    Base,
    BodyRow,
    FilterRow,
    KeptRow,
    MetricRow,
    ModelRow,
    NoteRow,
    ReceiptRow,
    RunRow,
    SnapshotRow,
    StepRow,
)
from covey.node.gossip.state import TABLE, machine_from_text
from covey.storage.sql.engine import translated


@dataclass(frozen=True)
class RunFacts:
    """A run, and a node's part in it.

    Attributes:
        name: The run's.
        spec: The specification, as JSON.
        me: The node.
        peers: Who takes part from the beginning; this node is not among them where it came late.
        minted: The units that this incarnation began with.
        layout: The run's, as JSON; empty: not known yet.
        first: The first model; None: it was not made yet.
        ended: completed, left, evicted or retired; empty: it goes on.
        reason: Why it ended so.
    """

    name: str
    spec: str
    me: Incarnation
    peers: tuple[Incarnation, ...]
    minted: int
    layout: str = ""
    first: Artifact | None = None
    ended: str = ""
    reason: str = ""


def read_facts(engine: Engine) -> RunFacts | None:
    """What the record says of the run; None: it is new."""
    with translated(), Session(engine) as session:
        row = session.get(RunRow, ONLY)
        if row is None:
            return None
        return RunFacts(
            row.name,
            row.spec,
            Incarnation(row.node, row.incarnation),
            tuple(Incarnation(node, number) for node, number in row.peers),
            int(row.minted),
            row.layout,
            artifact_from_json(row.first) if row.first is not None else None,
            row.ended,
            row.reason,
        )


def write_facts(engine: Engine, facts: RunFacts) -> None:
    """Put a new run on record."""
    values = {
        "id": ONLY,
        "version": VERSION,
        "name": facts.name,
        "spec": facts.spec,
        "node": facts.me.node,
        "incarnation": facts.me.number,
        "minted": str(facts.minted),
        "peers": [[peer.node, peer.number] for peer in facts.peers],
        "began": time.time(),
    }
    with translated(), engine.begin() as connection:
        connection.execute(insert(RunRow).values(values))


def write_first(engine: Engine, layout: str, first: Artifact) -> None:
    """Note the first model, whose file is there."""
    with translated(), engine.begin() as connection:
        connection.execute(update(RunRow).values(layout=layout, first=artifact_to_json(first)))


def read_saved(engine: Engine) -> Saved[Artifact]:
    """What a restart begins with.

    Raises:
        StoreError: It cannot be read.
    """
    with translated(), Session(engine) as session:
        newest = session.get(SnapshotRow, ONLY)
        notes = [_noted(row) for row in session.scalars(select(NoteRow).order_by(NoteRow.id))]
        if newest is None:
            return Saved(None, notes)
        bodies: dict[int, Artifact] = {}
        inbox: dict[tuple[Incarnation, int], Artifact] = {}
        for body in session.scalars(select(BodyRow)):
            artifact = artifact_from_json(body.artifact)
            if body.peer:
                inbox[Incarnation(body.peer, body.incarnation), body.number] = artifact
            else:
                bodies[body.number] = artifact
        machine, model = machine_from_text(newest.machine), artifact_from_json(newest.model)
        row = session.get(KeptRow, ONLY)
        kept = artifact_from_json(row.artifact) if row is not None else None
        return Saved(Snapshot(newest.step, machine, model, bodies, inbox, kept), notes)


def _noted(row: NoteRow) -> tuple[Noted, Artifact | None]:
    event: Event = TABLE.from_json(json.loads(row.event))
    if not isinstance(event, Noted):
        raise StoreError(f"the record has a note that is none: {type(event).__name__}")
    return event, artifact_from_json(row.artifact) if row.artifact is not None else None


def machine_of(facts: RunFacts, policy: PushSumPolicy, saved: Saved[Artifact]) -> PushSum:
    """The machine as the record has it: its newest snapshot, and what was noted since."""
    fresh = PushSum(facts.me, policy, facts.peers, facts.minted)
    machine = saved.snapshot.machine if saved.snapshot is not None else fresh
    for event, _ in saved.noted:
        machine.handle(event)
    return machine


def digests_of(saved: Saved[Artifact]) -> set[str]:
    """The files that a restart needs."""
    bodies = [body for _, body in saved.noted if body is not None]
    return {body.digest for body in [*bodies, *(saved.snapshot.all_bodies if saved.snapshot else ())]}


def read_models(engine: Engine) -> dict[int, tuple[Artifact, int]]:
    """The models that stay (`[gossip] keep_every`), by step, each with the units that it came with."""
    with translated(), Session(engine) as session:
        rows = session.scalars(select(ModelRow).order_by(ModelRow.step))
        return {row.step: (artifact_from_json(row.artifact), int(row.units)) for row in rows}


def read_filters(engine: Engine) -> tuple[str, ...]:
    """The filters of the site that its newest training has passed, with their versions."""
    with translated(), Session(engine) as session:
        newest = session.scalar(select(FilterRow.names).order_by(FilterRow.step.desc()).limit(1))
    return tuple(map(str, newest or ()))


def read_receipts(engine: Engine, me: Incarnation) -> list[Kept]:
    """What peers signed about their edges with this node, as it was checked when it came."""
    with translated(), Session(engine) as session:
        return [_kept(row, me) for row in session.scalars(select(ReceiptRow))]


def _kept(row: ReceiptRow, me: Incarnation) -> Kept:
    peer = Incarnation(row.peer, row.incarnation)
    sender, receiver = (peer, me) if row.way == "in" else (me, peer)
    signed = SignedMass(row.statement, row.signature, row.certificate)
    return Kept("in" if row.way == "in" else "out", Receipt(sender, receiver, row.sequence, int(row.units)), signed)


def require_facts(engine: Engine) -> RunFacts:
    """What the record says of the run. Raises NotFound where there is none."""
    facts = read_facts(engine)
    if facts is None:
        raise NotFound("no run is on record here")
    return facts


def steps_after(engine: Engine, told: int, limit: int) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Published steps from number `told` on, at most `limit`, in order: each row, and what its training measured."""
    rows = select(*StepRow.__table__.columns).where(StepRow.step >= told).order_by(StepRow.step).limit(limit)
    with translated(), Session(engine) as session:
        steps = [dict(row._mapping) for row in session.execute(rows)]
        metrics: dict[int, dict[str, float]] = {step["step"]: {} for step in steps}
        for row in session.scalars(select(MetricRow).where(MetricRow.step.in_(list(metrics)))):
            metrics[row.step][row.name] = row.value
        return [(step, metrics[step["step"]]) for step in steps]


def rows_of(engine: Engine, table: type[Base]) -> list[dict[str, Any]]:
    """All rows of a table of history, in the order of their keys."""
    columns = table.__table__.columns
    with translated(), Session(engine) as session:
        keys = list(table.__table__.primary_key)
        return [dict(row._mapping) for row in session.execute(select(*columns).order_by(*keys))]
