"""A gossip run as its coordinator knows it: what each node stated of its part, and what their accounts come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from covey.client.gossip_nodes import audit_accounts, facts_of
from covey.client.values import Json
from covey.errors import CoveyError
from covey.gossip.audit import MassAudit
from covey.gossip.mass import weight
from covey.protos import admin_pb2 as pb
from covey.texts import printable
from covey.wire.identities.gossip_statement import GossipStatement


@dataclass(frozen=True)
class GossipPart:
    """A node's part in a gossip run, by its newest statement."""

    node: str
    state: str
    """invited, working, completed, left, declined, failed, retired, lost, late or evicted."""
    reason: str = ""
    """Why."""
    address: str = ""
    """Where peers call it; empty: it only calls."""
    fingerprint: str = ""
    """SHA-256 (hex) of its certificate's public key."""
    incarnation: int = 0
    """Which life of the node stated; 0: it has stated nothing."""
    step: int = 0
    """How many steps it has done."""
    weight: float = 0.0
    """Its mass; 1.0 is what a node begins with."""
    metrics: Json = field(default_factory=dict)
    """Of the newest step's training."""
    trained_s: float = 0.0
    blocked_s: float = 0.0
    """Seconds of training and between trainings, since its process started."""
    model_sha256: str = ""
    """Of its newest published model; empty: there is none, or it is not known since a restart."""
    filters: tuple[str, ...] = ()
    """Of its site, that its newest training has passed, by name and version; empty: none, or it does not say."""
    received_at: float | None = None
    """When the statement came, in Unix seconds."""


@dataclass(frozen=True)
class GossipView:
    """All parts of a run by node, and what their accounts come to: while they work, they are of different moments."""

    parts: tuple[GossipPart, ...]
    mass: MassAudit


def view_of(messages: Iterable[pb.GossipPart], spec: Json) -> GossipView:
    """The parts of a run from the messages that say them, and from its specification whether mass counts in it."""
    parts, accounts, facts = [], [], facts_of(spec)
    founders: set[str] = set()
    for message in messages:
        statement = _statement(message.statement)
        parts.append(_part(message, statement))
        if message.HasField("late") and not message.late:  # an older coordinator says it of nobody
            founders.add(message.node)
        if statement is not None:
            accounts.append({**statement.account(), **facts})
    accounts = [{**account, "nodes": sorted(founders)} for account in accounts]
    return GossipView(tuple(parts), audit_accounts(accounts))


def _statement(raw: bytes) -> GossipStatement | None:
    """What was stated, if anything that can be read."""
    try:
        return GossipStatement.from_bytes(raw) if raw else None
    except CoveyError:
        return None


def _part(message: pb.GossipPart, statement: GossipStatement | None) -> GossipPart:
    recorded = GossipPart(
        printable(message.node),
        printable(message.state),
        printable(message.reason),
        printable(message.address),
        printable(message.fingerprint),
    )
    if statement is None:
        return recorded
    newest = statement.steps[-1] if statement.steps else None
    return replace(
        recorded,
        incarnation=statement.incarnation,
        step=statement.step,
        weight=weight(int(statement.live)),
        metrics=dict(newest.metrics) if newest is not None else {},
        trained_s=newest.trained_s if newest is not None else 0.0,
        blocked_s=newest.blocked_s if newest is not None else 0.0,
        model_sha256=statement.model_sha256,
        filters=statement.filters,
        received_at=message.received_at,
    )
