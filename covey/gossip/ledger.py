"""One node's account of its mass: what it began with, what it gave to whom, what it had from whom.

Everything is cumulative and in whole units (`covey.gossip.mass`), so that accounts of different nodes are compared with
`==`. An edge carries one batch at a time: the next one is committed when the one before is acknowledged, so that
nothing piles up for a peer that is away, and batches of an edge come in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from covey.errors import LedgerError


@dataclass(frozen=True, order=True)
class Incarnation:
    """One life of a node: a node that lost its record comes back with the next number."""

    node: str
    number: int = 1

    def __str__(self) -> str:
        """For people."""
        return self.node if self.number == 1 else f"{self.node} (incarnation {self.number})"


@dataclass(frozen=True)
class Batch:
    """Mass on its way along an edge."""

    peer: Incarnation
    """To whom."""
    sequence: int
    """Of the edge, from 1."""
    units: int
    given: int = 0
    """Units that the edge has carried in all, with this batch."""


@dataclass
class OutEdge:
    """What was given to one peer."""

    sent: int = 0
    """Units, in all."""
    sequence: int = 0
    """Of the newest batch."""
    waiting: int = 0
    """Units of the newest batch, until it is acknowledged; 0: the edge is free."""
    reclaimed: int = 0
    """Units that were taken back when the peer was evicted. What was on its way then may have been applied, or not."""


@dataclass
class InEdge:
    """What was had from one peer."""

    applied: int = 0
    """Units, in all."""
    sequence: int = 0
    """Of the newest batch."""


@dataclass
class Ledger:
    """One incarnation's account.

    Attributes:
        live: The units that it has, with those that have arrived and are not mixed in yet.
        minted: The units that it began with.
        lost: The units that it gave up for good.
    """

    live: int = 0
    minted: int = 0
    lost: int = 0
    out: dict[Incarnation, OutEdge] = field(default_factory=dict)
    into: dict[Incarnation, InEdge] = field(default_factory=dict)
    evicted: set[Incarnation] = field(default_factory=set)

    def mint(self, units: int) -> None:
        """Begin with so many units (or with so many more)."""
        self.minted += units
        self.live += units

    def is_free(self, peer: Incarnation) -> bool:
        """Whether a batch may be committed to a peer now."""
        edge = self.out.get(peer)
        return peer not in self.evicted and (edge is None or not edge.waiting)

    def commit(self, parts: Mapping[Incarnation, int]) -> list[Batch]:
        """Give mass away: from now on it is on its way.

        Args:
            parts: Units for each peer; nothing is sent to one whose part is 0.

        Raises:
            LedgerError: More than there is, or a peer that is not free.
        """
        if any(units < 0 for units in parts.values()) or sum(parts.values()) > self.live:
            raise LedgerError(f"{sum(parts.values())} units cannot be given away: there are {self.live}")
        batches = []
        for peer, units in parts.items():
            if not self.is_free(peer):
                raise LedgerError(f"the batch before is still on its way to {peer}, or it is evicted")
            if units:
                edge = self.out.setdefault(peer, OutEdge())
                edge.sequence, edge.waiting, edge.sent = edge.sequence + 1, units, edge.sent + units
                self.live -= units
                batches.append(Batch(peer, edge.sequence, units, edge.sent))
        return batches

    def acknowledged(self, peer: Incarnation, sequence: int) -> bool:
        """A peer has a batch durably; whether that was still open.

        Raises:
            LedgerError: No such batch was ever sent: this record is older than what the peer has.
        """
        edge = self.out.get(peer, OutEdge())
        if sequence > edge.sequence:
            raise LedgerError(f"{peer} has batch {sequence}, and the newest that is on record here is {edge.sequence}")
        if sequence < edge.sequence or not edge.waiting:
            return False
        edge.waiting = 0
        return True

    def apply(
        self, peer: Incarnation, sequence: int, units: int, most: int, given: int | None = None
    ) -> Literal["applied", "double"]:
        """A batch has arrived: applied once, whatever is sent again.

        Args:
            peer: Who sends it.
            sequence: Its number on the edge.
            units: Its mass.
            most: All mass that was ever minted, for the check.
            given: What its sender signed that the edge has carried in all, with this batch; None: it signed nothing.

        Raises:
            LedgerError: A number that does not follow the one before, a mass that cannot be, a sum that is not what
                came, or an evicted sender.
        """
        edge = self.into.get(peer, InEdge())
        if sequence <= edge.sequence:
            return "double"
        if peer in self.evicted:
            raise LedgerError(f"{peer} is evicted")
        if sequence != edge.sequence + 1:
            raise LedgerError(f"batch {sequence} of {peer} does not follow {edge.sequence}, the newest that came")
        if not 0 < units <= most:
            raise LedgerError(f"batch {sequence} of {peer} has {units} units; there are {most} in all")
        if given not in (None, edge.applied + units):
            raise LedgerError(
                f"{peer} says it gave {given} units in all; with batch {sequence} {edge.applied + units} came"
            )
        edge.sequence, edge.applied = sequence, edge.applied + units
        self.into[peer] = edge
        self.live += units
        return "applied"

    def evict(self, peer: Incarnation) -> int:
        """A peer is out for good: take back what is on its way to it.

        Returns:
            The units that were taken back. Their fate is not known (the peer may have had them, and passed them on), so
            they are reported as uncertain.
        """
        self.evicted.add(peer)
        edge = self.out.get(peer)
        if edge is None:
            return 0
        units, edge.waiting = edge.waiting, 0
        edge.reclaimed += units
        self.live += units
        return units

    def lose(self) -> int:
        """Give up all there is for good; how much it was."""
        units, self.live = self.live, 0
        self.lost += units
        return units

    @property
    def in_flight(self) -> int:
        """Units that were given away and are not acknowledged."""
        return sum(edge.waiting for edge in self.out.values())

    @property
    def balance(self) -> int:
        """What `live` has to be by the other figures."""
        had = self.minted + sum(edge.applied for edge in self.into.values())
        gave = sum(edge.sent - edge.reclaimed for edge in self.out.values())
        return had - gave - self.lost
