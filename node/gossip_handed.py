"""A gossip run that a coordinator has handed out: what a node knows of it, and what the coordinator has of its part."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from covey import messages as msg
from covey.gossip.ledger import Incarnation
from covey.node.gossip.orders import founders_of
from covey.node.gossip_part import GossipPart, Terms
from covey.node.operator.config import NodeConfig
from covey.node.peers.roster import Member, Roster
from covey.spec import GossipSpec
from covey.wire.evictions import SignedNotice


@dataclass
class Told:
    """What the coordinator has of this node's statements in a run; times by the event loop's clock."""

    incarnation: int = 1
    number: int = 0
    step: int = 0
    sent_digest: str = ""
    """Of the statement that is unanswered; empty: there is none."""
    content: object = None
    """Of the newest one that was sent, without its number and time."""
    began: float = 0.0
    due: float = 0.0


@dataclass
class Handed:
    """A run that was handed out.

    Attributes:
        order: What the coordinator says of it.
        spec: Its specification.
        roster: Who takes part.
        stop: Ends this node's part, or the present try of it.
        is_over: Whether the coordinator says that the run has ended.
        is_kept: Whether that is on disk as it is here.
        declined: Why this node takes no part; empty: it does.
        failure: Why its part cannot go on for now; empty: it can.
        notices: Evictions that the coordinator told of.
        part: What is at work.
    """

    order: msg.GossipOrder
    spec: GossipSpec
    roster: Roster
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    is_kept: bool = True
    declined: str = ""
    failure: str = ""
    notices: dict[tuple[Incarnation, bool], SignedNotice] = field(default_factory=dict)
    part: GossipPart | None = None
    told: Told = field(default_factory=Told)


def terms_of(config: NodeConfig, spec: GossipSpec, order: msg.GossipOrder, me: str, *, rejoins: bool) -> Terms:
    """On what terms this node takes part in a run that was handed out."""
    peers = config.peers
    return Terms(
        config,
        spec,
        order.run,
        peers.listen,
        peers.relay,
        peers.durability,
        rejoins,
        first_sha256=order.model_sha256,
        founders=tuple(founders_of(order)),
        part=next((member.part for member in order.members if member.name == me), 0),
    )


def roster_of(order: msg.GossipOrder) -> Roster:
    """Who takes part, as the coordinator says."""
    return Roster({member.name: member for member in members_of(order.members)})


def members_of(listed: Iterable[msg.GossipMember]) -> list[Member]:
    """Nodes as peers call them."""
    return [Member(member.name, member.address, member.fingerprint) for member in listed]
