"""What a node knows of a gossip run that its coordinator has handed out, and what the coordinator knows of its part."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from covey import messages as msg
from covey.gossip.ledger import Incarnation
from covey.node.gossip_part import GossipPart
from covey.node.peers.roster import Roster
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
