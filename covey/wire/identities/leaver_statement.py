"""What a node signs when it leaves a gossip run: its account of every edge, for all, also for who is away just then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, with_config

from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.wire.identities.canonical import MAX_BYTES, MAX_COUNT, STRICT, Text, canonical_json, read_canonical

MAX_STATEMENT_BYTES = 256 << 10
_Number = Annotated[int, Field(ge=1, lt=MAX_COUNT)]
_Batch = Annotated[int, Field(ge=0, lt=MAX_BYTES)]


@with_config(STRICT)
@dataclass(frozen=True)
class LeaverStatement:
    """That an incarnation has left a run: it handed over all its mass, and takes nothing any more."""

    federation: Text
    run: Text
    node: Text
    incarnation: _Number
    units: Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,38})$")]
    """Of all that it gave, less what it took back: decimal digits, as in `MassStatement`."""
    edges: tuple[tuple[Text, _Number, _Batch, _Batch], ...]
    """Of each peer: name, incarnation, the newest batch of those that it acknowledged, and the newest had of it."""
    covey: Literal["left/1"] = field(default="left/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json(vars(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> LeaverStatement:
        """Read a statement from anybody.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_LEFT, raw, "left/1", MAX_STATEMENT_BYTES)

    @classmethod
    def of(cls, federation: str, run: str, me: Incarnation, ledger: Ledger) -> LeaverStatement:
        """What an account comes to at its end."""
        edges = []
        for peer in sorted(ledger.out.keys() | ledger.into.keys()):
            given, had = ledger.out.get(peer, OutEdge()), ledger.into.get(peer, InEdge())
            edges.append((peer.node, peer.number, given.sequence - bool(given.waiting), had.sequence))
        units = sum(edge.sent - edge.reclaimed for edge in ledger.out.values())
        return cls(federation, run, me.node, me.number, str(units), tuple(edges))

    @property
    def who(self) -> Incarnation:
        """Who left."""
        return Incarnation(self.node, self.incarnation)

    def with_peer(self, peer: Incarnation) -> tuple[int, int]:
        """Numbers of the newest batches that a peer acknowledged, and that were had of it; 0: none."""
        known = {(name, number): (given, had) for name, number, given, had in self.edges}
        return known.get((peer.node, peer.number), (0, 0))


_LEFT = TypeAdapter(LeaverStatement)
