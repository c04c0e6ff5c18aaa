"""Who a peer says it is: whether its hello fits this run, and which life of each node is the present one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from covey import __version__
from covey.errors import Conflict, IdentityError, NotReady, SpecError, VersionMismatch
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.node.peers.translation import WIRE, Hello


@dataclass(frozen=True)
class Part:
    """This node's part in a run: what it says in each hello.

    Attributes:
        me: This node, and which life of it this is.
        run: The run's name.
        specification: SHA-256 (hex) of the run's specification.
        minted: The units that this incarnation began with.
        joins_with: The units that every incarnation but the first begins with, as the specification says.
    """

    me: Incarnation
    run: str
    specification: str
    minted: int = ONE
    joins_with: int = 0

    def hello(self) -> Hello:
        """This node's."""
        return Hello(WIRE, __version__, self.run, self.me.number, self.specification, self.minted)

    def refuse(self, name: str, hello: Hello) -> None:
        """Check what a peer says against this node's own part.

        Raises:
            VersionMismatch: It speaks another version of the messages.
            Conflict: It takes part in another run.
            SpecError: It has another specification of this run.
            IdentityError: It says that it began with a mass that the specification does not give it.
        """
        if hello.wire != WIRE:
            older = name if hello.wire < WIRE else self.me.node
            raise VersionMismatch(
                f"{name} (Covey {hello.version}) speaks version {hello.wire} of the messages between peers, "
                f"{self.me.node} (Covey {__version__}) version {WIRE}: upgrade {older}"
            )
        if hello.run != self.run:
            raise Conflict(f"{name} takes part in run {hello.run!r}, and {self.me.node} in run {self.run!r}")
        if hello.specification != self.specification:
            raise SpecError(
                f"{name} has another specification of run {self.run!r} ({hello.specification[:12]}...) than "
                f"{self.me.node} ({self.specification[:12]}...): give both the same file"
            )
        if hello.incarnation > 1 and hello.minted != self.joins_with:
            raise IdentityError(
                f"{name} says that incarnation {hello.incarnation} began with {hello.minted} units; by the run's "
                f"specification it is {self.joins_with}"
            )


class Notices(Protocol):
    """Who is evicted; `covey.node.peers.evicted.Evicted`."""

    def refuse(self, who: Incarnation) -> None:
        """Raises `IdentityError` if an incarnation is out."""
        ...

    def __contains__(self, who: object) -> bool: ...


class Lives:
    """The present incarnation of each node, as far as this node knows.

    Args:
        known: Those that are on record here; of other nodes the first one is expected.
        evicted: Who is out.
    """

    def __init__(self, known: Iterable[Incarnation], evicted: Notices) -> None:
        self._evicted = evicted
        self._newest: dict[str, int] = {}
        for who in known:
            self._newest[who.node] = max(who.number, self._newest.get(who.node, 1))

    def of(self, name: str) -> Incarnation:
        """The present incarnation of a node."""
        return Incarnation(name, self._newest.get(name, 1))

    def is_out(self, name: str) -> bool:
        """Whether a node is evicted, and no later incarnation of it is known."""
        return self.of(name) in self._evicted

    def admit(self, name: str, hello: Hello) -> tuple[Incarnation, bool]:
        """The incarnation that says hello, and whether it is a new one: it takes part from now on.

        Raises:
            IdentityError: It is evicted, an older one than is known, or began with a mass that cannot be.
            NotReady: The one before it is not known to be evicted.
        """
        who, newest = Incarnation(name, hello.incarnation), self.of(name)
        if who.number < 1 or not 0 <= hello.minted <= ONE:
            raise IdentityError(f"{name} cannot be incarnation {who.number} with {hello.minted} units")
        self._evicted.refuse(who)
        if who.number < newest.number:
            raise IdentityError(f"{who} is over: {newest} takes part")
        if who == newest:
            return who, False
        before = Incarnation(name, who.number - 1)
        if before not in self._evicted:
            raise NotReady(f"{who} cannot take part before {before} is evicted: an admin signs that")
        self._newest[name] = who.number
        return who, True
