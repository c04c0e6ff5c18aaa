"""What a node states of its part in a run to an observer: read from its record, so that it is never taken back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.protocols.runs import policy_of
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import machine_of, read_filters, read_saved, require_facts, rows_of, steps_after
from covey.node.gossip.record.schema import SnapshotRow
from covey.spec import GossipSpec
from covey.wire.identities.canonical import MAX_TEXT
from covey.wire.identities.gossip_statement import (
    MAX_FILTERS,
    MAX_METRICS,
    MAX_REASON,
    MAX_STEPS,
    EdgeStatement,
    GossipStatement,
    PartState,
    StepStatement,
)

THROUGH = ("completed", "left")
"""How a part ends that does all that it was to do."""


@dataclass(frozen=True)
class Stated:
    """Who states, and what is known of what it stated before.

    Attributes:
        federation: The node's.
        run: The run, as the observer calls it.
        key: Id of the key that will sign.
        number: The statement's.
        told: Of how many steps earlier statements have told.
        failure: Why the node's part cannot go on for now; empty: it can.
    """

    federation: str
    run: str
    key: str
    number: int
    told: int
    failure: str = ""


def statement_of(folder: Path, spec: GossipSpec, stated: Stated) -> GossipStatement:
    """A statement of what an incarnation has on record. Blocking.

    Args:
        folder: The incarnation's.
        spec: The run.
        stated: The rest.

    Raises:
        NotFound: There is no record yet.
        StoreError: It cannot be read.
    """
    engine = open_record(folder)
    try:
        facts, saved = require_facts(engine), read_saved(engine)
        machine = machine_of(facts, policy_of(spec.gossip, len(facts.peers), allow_path=True), saved)
        rows = steps_after(engine, stated.told, MAX_STEPS) or steps_after(engine, stated.told - 1, 1)
        steps = [_step(row, metrics) for row, metrics in rows]
        snapshot, filters = rows_of(engine, SnapshotRow), read_filters(engine)
    finally:
        engine.dispose()
    ledger, state = machine.exchange.ledger, _state(facts.ended, stated.failure)
    if state in THROUGH and len(rows) == MAX_STEPS:  # there may be more, and nobody asks who is through for them
        state = "working"
    return GossipStatement(
        federation=stated.federation,
        run=stated.run,
        node=facts.me.node,
        key=stated.key,
        incarnation=facts.me.number,
        number=stated.number,
        state=state,
        reason=_one_line(stated.failure if state == "failed" else facts.reason),
        step=machine.step,
        minted=str(ledger.minted),
        live=str(ledger.live),
        lost=str(ledger.lost),
        evicted=tuple((who.node, who.number) for who in sorted(ledger.evicted)),
        edges=edges_of(ledger),
        steps=tuple(steps),
        model_sha256=snapshot[0]["model_sha256"] if snapshot else "",
        at=time.time(),
        filters=tuple(_one_line(name, MAX_TEXT) for name in filters[:MAX_FILTERS]),
    )


def _one_line(text: str, most: int = MAX_REASON) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:most])


def _state(ended: str, failure: str) -> PartState:
    match ended:
        case "completed" | "left" | "retired" | "evicted":
            return ended
        case _:
            return "failed" if failure else "working"


def _step(row: Mapping[str, Any], metrics: Mapping[str, float]) -> StepStatement:
    times = float(row["at"]), row["live"], float(row["trained_s"]), float(row["blocked_s"])
    return StepStatement(row["step"], *times, dict(list(metrics.items())[:MAX_METRICS]))


def edges_of(ledger: Ledger) -> tuple[EdgeStatement, ...]:
    """An account with each peer, by name."""
    return tuple(_edge(ledger, peer) for peer in sorted(ledger.out.keys() | ledger.into.keys()))


def _edge(ledger: Ledger, peer: Incarnation) -> EdgeStatement:
    out, into = ledger.out.get(peer, OutEdge()), ledger.into.get(peer, InEdge())
    given = str(out.sent), str(out.waiting), str(out.reclaimed), out.sequence
    return EdgeStatement(peer.node, peer.number, *given, str(into.applied), into.sequence)
