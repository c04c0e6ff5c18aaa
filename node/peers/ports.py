"""What the wire between peers needs of the node that it serves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from covey.artifact import Artifact
from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.events import PeerEvicted, PeerJoined, PeerSuspected, PeerTrusted
from covey.node.peers.translation import Said
from covey.wire.transfers.chunk_writer import Spool

Heard = Said | PeerJoined | PeerSuspected | PeerTrusted | PeerEvicted
"""What a peer said, and what is known of it."""


class Receiver(Protocol):
    """Is given what comes from peers. Who `peer` is comes from its certificate and its hello."""

    async def arrived(self, peer: Incarnation, sequence: int, units: int, step: int, body: Artifact) -> None:
        """A batch came: its body is whole, checked against its digests, and among this node's files.

        When this returns it is durable, and is acknowledged. From then on only the receiver drops the file; after an
        error the wire may.

        Raises:
            LedgerError: It cannot be; the message is for the peer.
            StoreError: It cannot be recorded now; the peer sends again later.
        """
        ...

    def heard(self, peer: Incarnation, event: Heard) -> None:
        """A peer said something, or something is known of it. Never waits."""
        ...


class Files(Protocol):
    """The node's files by digest; `covey.storage.files.artifacts.ArtifactFiles` says what each member does."""

    # ruff: noqa: D102

    def path(self, digest: str) -> Path: ...
    def check(self, digest: str) -> bool: ...
    def offset(self, artifact: Artifact) -> int: ...
    def begin(self, artifact: Artifact) -> Spool: ...
    def put(self, artifact: Artifact, data: bytes) -> Path: ...
    def release(self, digests: Iterable[str]) -> None: ...
