"""The live sessions: at most one a node, the newest wins. Messages become protobuf here, at the door."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

from covey import messages as msg
from covey.protos import coordinator_pb2 as pb
from covey.wire.translation import to_node

QUEUE_MESSAGES = 1000


@dataclass(eq=False)
class Session:
    """One node's open stream: what is to be sent to it, and when it was heard last (monotonic seconds)."""

    node: str
    outbox: asyncio.Queue[pb.CoordinatorMessage | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_MESSAGES))
    greeted: bool = False
    """Whether the node has said hello, in our version (it may again, when it knows more of itself)."""
    hellos: int = 0
    """How often it has."""
    heard_at: float = field(default_factory=time.monotonic)
    expires_at: float = math.inf
    """When the certificate ends with which it was opened, in Unix seconds."""
    key_sha256: str = ""
    """Fingerprint of that certificate's key."""
    peer_address: str = ""
    """Where other nodes call this one, as it says; empty: it only calls."""

    def send(self, message: msg.CoordinatorMessage) -> None:
        """Queue a message; a node that lets 1,000 pile up loses its session."""
        try:
            self.outbox.put_nowait(to_node(message))
        except asyncio.QueueFull:
            self.close()

    def close(self, code: str = "", reason: str = "") -> None:
        """End the stream, after what is queued; with a code, say goodbye first."""
        if self.outbox.full():
            self.outbox.get_nowait()
        if code and self.outbox.qsize() < QUEUE_MESSAGES - 1:
            self.outbox.put_nowait(to_node(msg.Goodbye(code, reason)))
        self.outbox.put_nowait(None)


class Sessions:
    """All live sessions by node id."""

    def __init__(self) -> None:
        self._live: dict[str, Session] = {}

    def open(self, node: str, expires_at: float = math.inf, key_sha256: str = "") -> Session:
        """A new session for a node; an older one is closed."""
        old = self._live.get(node)
        if old is not None:
            old.close("replaced", "a newer session of this node was opened")
        session = self._live[node] = Session(node, expires_at=expires_at, key_sha256=key_sha256)
        return session

    def is_current(self, session: Session) -> bool:
        """Whether this is still the node's session."""
        return self._live.get(session.node) is session

    def forget(self, session: Session) -> bool:
        """The stream ended; True if it was the node's current one."""
        if not self.is_current(session):
            return False
        del self._live[session.node]
        return True

    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        """Send to a node if it is connected."""
        session = self._live.get(node)
        if session is None:
            return False
        session.send(message)
        return True

    def close(self, node: str, code: str, reason: str) -> None:
        """End a node's session with a goodbye."""
        session = self._live.get(node)
        if session is not None:
            session.close(code, reason)

    def close_all(self, code: str, reason: str) -> None:
        """End every session with a goodbye."""
        for node in sorted(self._live):
            self.close(node, code, reason)

    def live(self) -> dict[str, Session]:
        """The sessions as they are now, by node id; for any thread."""
        return self._live.copy()

    def nodes(self) -> list[str]:
        """Connected nodes that have said hello, by id."""
        return sorted(node for node, session in self._live.items() if session.greeted)

    def takes(self, node: str) -> bool:
        """Whether a node may work at all: any may."""
        return True

    def peer(self, node: str) -> msg.GossipMember | None:
        """Where other nodes call a node, and the fingerprint of its key; None: it is not connected."""
        session = self._live.get(node)
        return None if session is None else msg.GossipMember(node, session.peer_address, session.key_sha256)

    def __contains__(self, node: object) -> bool:
        session = self._live.get(node) if isinstance(node, str) else None
        return session is not None and session.greeted
