"""The rows of a publication, and of a batch that came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from covey.artifact import Artifact, artifact_to_json
from covey.gossip.ledger import Batch, Incarnation, InEdge, OutEdge
from covey.gossip.push_sum.events import Arrived
from covey.gossip.push_sum.exchange import Exchange
from covey.gossip.push_sum.words import Peer
from covey.node.gossip.diary import Span
from covey.node.gossip.ports import Noted, Snapshot
from covey.node.gossip.receipts import Kept
from covey.node.gossip.record.schema import ONLY
from covey.node.gossip.state import machine_to_text

Row = dict[str, Any]


def snapshot_row(snapshot: Snapshot[Artifact]) -> Row:
    """What a restart begins with; the machine's state is taken down at once. Its model is named at the end."""
    return {
        "id": ONLY,
        "step": snapshot.step,
        "machine": machine_to_text(snapshot.machine),
        "model": artifact_to_json(snapshot.model),
        "model_sha256": "",
    }


def kept_rows(snapshot: Snapshot[Artifact]) -> list[Row]:
    """The vectors that stay with the node, if there are any."""
    return [{"id": ONLY, "artifact": artifact_to_json(snapshot.kept)}] if snapshot.kept is not None else []


def body_rows(snapshot: Snapshot[Artifact]) -> list[Row]:
    """Own publications, and what came and is not mixed in."""
    own = [_body("", 0, step, artifact) for step, artifact in snapshot.bodies.items()]
    came = [_body(peer.node, peer.number, number, body) for (peer, number), body in snapshot.inbox.items()]
    return own + came


def _body(peer: str, incarnation: int, number: int, artifact: Artifact) -> Row:
    return {"peer": peer, "incarnation": incarnation, "number": number, "artifact": artifact_to_json(artifact)}


def step_row(step: int, exchange: Exchange, at: float, trained_s: float, blocked_s: float) -> Row:
    """A step, and the mass at its publication."""
    ledger = exchange.ledger
    return {
        "step": step,
        "at": at,
        "trained_s": trained_s,
        "blocked_s": blocked_s,
        "live": str(ledger.live),
        "in_flight": str(ledger.in_flight),
        "minted": str(ledger.minted),
        "lost": str(ledger.lost),
        "uncertain": str(exchange.uncertain),
        "model_sha256": "",
    }


def edge_rows(exchange: Exchange) -> list[Row]:
    """The account by peer."""
    ledger = exchange.ledger
    return [
        _edge(peer, ledger.out.get(peer, OutEdge()), ledger.into.get(peer, InEdge()))
        for peer in sorted(ledger.out.keys() | ledger.into.keys())
    ]


def _edge(peer: Incarnation, out: OutEdge, into: InEdge) -> Row:
    return {
        "peer": peer.node,
        "incarnation": peer.number,
        "sent": str(out.sent),
        "waiting": str(out.waiting),
        "reclaimed": str(out.reclaimed),
        "sent_batches": out.sequence,
        "applied": str(into.applied),
        "applied_batches": into.sequence,
    }


def peer_rows(exchange: Exchange) -> list[Row]:
    """What is known of each peer."""
    known = {name: _state(peer) for name, peer in exchange.peers.items()}
    known |= _out(exchange)
    steps = {name: peer.step for name, peer in exchange.peers.items()}
    return [
        {"peer": name.node, "incarnation": name.number, "state": state, "step": steps.get(name, -1)}
        for name, state in known.items()
    ]


def peers_by_now(rows: Sequence[Row], exchange: Exchange) -> list[Row]:
    """What was on record of each peer at a publication, with those that left or were evicted since then."""
    known = {Incarnation(row["peer"], row["incarnation"]): row for row in rows}
    for who, state in _out(exchange).items():
        unknown = {"peer": who.node, "incarnation": who.number, "step": -1}
        known[who] = {**known.get(who, unknown), "state": state}
    return list(known.values())


def _out(exchange: Exchange) -> dict[Incarnation, str]:
    return dict.fromkeys(exchange.departed, "left") | dict.fromkeys(exchange.ledger.evicted, "evicted")


def _state(peer: Peer) -> str:
    if not peer.is_trusted:
        return "away"
    return "finished" if peer.is_finished else "there"


def span_rows(spans: Sequence[Span]) -> list[Row]:
    """What the node did and when."""
    return [
        {
            "kind": span.kind,
            "step": span.step,
            "began": span.began,
            "ended": span.ended,
            "peer": span.peer.node if span.peer else "",
            "incarnation": span.peer.number if span.peer else 0,
            "sequence": span.sequence,
            "tries": span.tries,
            "outcome": span.outcome,
        }
        for span in spans
    ]


def receipt_row(kept: Kept) -> Row:
    """What a peer signed."""
    return {
        "way": kept.way,
        "peer": kept.peer.node,
        "incarnation": kept.peer.number,
        "sequence": kept.receipt.sequence,
        "units": str(kept.receipt.units),
        **vars(kept.signed),
    }


def exchange_in(event: Noted, body: Artifact | None, at: float) -> Row | None:
    """A batch that came; None: the event is of another kind."""
    if not isinstance(event, Arrived):
        return None
    size_bytes = body.size_bytes if body is not None else 0
    return _exchange("in", event.peer, event.sequence, event.units, event.step, size_bytes, at)


def exchange_out(batch: Batch, snapshot: Snapshot[Artifact], at: float) -> Row:
    """A batch that is given."""
    size_bytes = snapshot.bodies[snapshot.step].size_bytes
    return _exchange("out", batch.peer, batch.sequence, batch.units, snapshot.step, size_bytes, at)


def _exchange(
    way: str, peer: Incarnation, sequence: int, units: int, step: int, size_bytes: int, at: float
) -> dict[str, Any]:
    return {
        "way": way,
        "peer": peer.node,
        "incarnation": peer.number,
        "sequence": sequence,
        "units": str(units),
        "step": step,
        "size_bytes": size_bytes,
        "at": at,
    }
