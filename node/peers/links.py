"""The open links: at most one a peer. Which of two stays is decided alike on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from covey.errors import Conflict
from covey.gossip.ledger import Incarnation
from covey.protos import peer_pb2 as pb

QUEUE_MESSAGES = 256
REPLACED, EVICTED, STOPPING, SILENT = "replaced", "evicted", "stopping", "silent"


@dataclass(eq=False)
class Link:
    """An open stream to a peer.

    Attributes:
        peer: Who is at its other end.
        caller: Name of the node that opened it.
        outbox: What is to be sent; None: it ends then.
    """

    peer: Incarnation
    caller: str
    outbox: asyncio.Queue[pb.PeerMessage | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_MESSAGES))
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_ours(self) -> bool:
        """Whether this node opened it: then this node opens the streams for bodies, too."""
        return self.caller != self.peer.node

    def send(self, message: pb.PeerMessage) -> None:
        """Queue a message. A peer that lets hundreds pile up loses its link."""
        try:
            self.outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.close()

    def close(self, code: str = "", reason: str = "") -> None:
        """End it after what is queued; with a code, say so."""
        if self.ended.is_set():
            return
        self.ended.set()
        while self.outbox.qsize() > QUEUE_MESSAGES - 2:
            self.outbox.get_nowait()
        if code:
            self.outbox.put_nowait(pb.PeerMessage(goodbye=pb.PeerGoodbye(code=code, reason=reason)))
        self.outbox.put_nowait(None)


class Links:
    """All open links by the peer's name.

    Args:
        on_lost: Told of a link that was the peer's, and has ended.
    """

    def __init__(self, on_lost: Callable[[Link], None]) -> None:
        self._live: dict[str, Link] = {}
        self._on_lost = on_lost

    def open(self, link: Link) -> None:
        """A peer's link from now on; the one before is closed.

        Where both sides call each other at once, the link stays that the node with the lesser name opened.

        Raises:
            Conflict: There is one that stays.
        """
        before = self._live.get(link.peer.node)
        if before is not None and not before.ended.is_set() and before.caller < link.caller:
            raise Conflict("there is a link already, which the other side opened")
        self._live[link.peer.node] = link
        if before is not None:
            before.close(REPLACED, "a newer link was opened")
            self._on_lost(before)

    def forget(self, link: Link) -> None:
        """A link has ended."""
        link.close()
        if self._live.get(link.peer.node) is link:
            del self._live[link.peer.node]
            self._on_lost(link)

    def of(self, peer: Incarnation) -> Link | None:
        """The link to a peer's incarnation, if there is one."""
        link = self._live.get(peer.node)
        return link if link is not None and link.peer == peer and not link.ended.is_set() else None

    def named(self, name: str) -> Link | None:
        """The link to a node, whatever its incarnation."""
        link = self._live.get(name)
        return link if link is not None and not link.ended.is_set() else None

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._live.values()))
