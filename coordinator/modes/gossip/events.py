"""What the machine of mode `gossip` is told and asks for, beside what all modes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MemberState = Literal[
    "invited", "working", "completed", "left", "declined", "failed", "retired", "lost", "late", "evicted"
]
"""What a node's part is, or how it ended.

`failed` (its process says that it cannot go on) and `retired` (its record is older than what its peers had of it) may
become `working` again as long as the run goes on; `lost` (no connection) and `late` (a connection, and no answer) are
what a node without a last word is when the run ends, or too late.
"""
GONE: tuple[MemberState, ...] = ("left", "declined", "late", "lost", "evicted")
"""Whose part of the data another one may have."""
FOR_GOOD: tuple[MemberState, ...] = ("completed", "left", "declined", "late", "lost", "evicted")
"""What ends a part, whatever the others do."""


@dataclass(frozen=True)
class GossipRunPolicy:
    """The machine's numbers; times in seconds.

    Attributes:
        min_nodes: The run begins with at least so many.
        gather_s: How long the start waits for nodes that were there a moment ago.
        answer_s: How long a connected node may leave its invitation unanswered.
        away_s: How long one without a connection is waited for once all others are through.
        tell_s: How long passes, at least, from telling everybody of a node's address or key to its next one.
        parts: Into how many parts the data are cut; 0: as many as nodes begin; None: each node has its own.
        closed: Why nobody can join once the run has begun; empty: they can.
    """

    min_nodes: int
    gather_s: float = 15.0
    answer_s: float = 180.0
    away_s: float = 120.0
    tell_s: float = 60.0
    parts: int | None = 0
    closed: str = ""


@dataclass(frozen=True)
class Stated:
    """A node's statement is on record."""

    node: str
    incarnation: int
    state: MemberState
    reason: str
    now: float


@dataclass(frozen=True)
class Moved:
    """A node has another address or key than it had; that is on record."""

    node: str
    now: float


@dataclass(frozen=True)
class OpenGossip:
    """Put on record who takes part."""

    roster: tuple[str, ...]


@dataclass(frozen=True)
class Admit:
    """Put on record that a node takes part that came after the run began, with its part of the data; tell everybody."""

    node: str
    part: int


@dataclass(frozen=True)
class TurnAway:
    """Put on record why a node that came after the run began takes no part."""

    node: str
    reason: str


@dataclass(frozen=True)
class SendOrder:
    """Tell a connected node what it takes part in, with all notices."""

    node: str


@dataclass(frozen=True)
class TellOthers:
    """Tell everybody but a node of its address and key."""

    node: str


@dataclass(frozen=True)
class NoteMember:
    """Put on record what a node's part has become."""

    node: str
    state: MemberState
    reason: str


@dataclass(frozen=True)
class Evict:
    """Sign that an incarnation is out, and tell everybody; for good: with every other incarnation of its node."""

    node: str
    incarnation: int
    reason: str
    for_good: bool = False
