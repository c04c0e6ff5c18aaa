"""What the wire between peers needs of the node; whom it serves is `covey.node.gossip.ports.Receiver`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from covey.artifact import Artifact
from covey.gossip.ledger import Incarnation
from covey.node.models.ports import Shelf
from covey.wire.transfers.chunk_writer import Spool


class Files(Protocol):
    """The node's files by digest; `covey.storage.files.artifacts.ArtifactFiles` says what each member does."""

    # ruff: noqa: D102

    def path(self, digest: str) -> Path: ...
    def check(self, digest: str) -> bool: ...
    def offset(self, artifact: Artifact) -> int: ...
    def begin(self, artifact: Artifact) -> Spool: ...
    def put(self, artifact: Artifact, data: bytes) -> Path: ...
    def unfinished(self) -> set[str]: ...
    def forget(self, digests: Iterable[str]) -> None: ...
    def release(self, digests: Iterable[str]) -> None: ...


class Holdings(Shelf, Protocol):
    """The models that a node has for peers; `covey.node.gossip.holdings.ModelShelf`."""

    def newest(self, peer: Incarnation) -> tuple[Artifact, int]:
        """The model for a peer that joins, and its step; it stays for that peer for a while.

        Raises:
            NotReady: There is none now.
            NotFound: It takes part already.
        """
        ...
