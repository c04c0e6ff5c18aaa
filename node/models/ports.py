"""What lending needs of the node, and what the node needs of others that lend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from covey import messages as msg
from covey.artifact import Artifact
from covey.node.models.assembly import Assembled


@dataclass(frozen=True)
class Lent:
    """A file that is lent.

    Attributes:
        path: Where it is.
        chunk_sha256: The digests of its chunks: each is looked at before it leaves, for the file may be dropped
            meanwhile. Empty: the file stays as it is as long as it is lent.
    """

    path: Path
    chunk_sha256: bytes = b""


class Shelf(Protocol):
    """The files that a node lends."""

    def lend(self, digest: str) -> AbstractContextManager[Lent]:
        """A file, for the time of the context.

        Raises:
            NotFound: There is no such file, or it is none that is lent.
        """
        ...

    def check(self, digest: str) -> bool:
        """Whether the file's bytes are those of its name. May wait for the disk."""
        ...


class PeerModels(Protocol):
    """Models of a coordinator's runs from other nodes, and for them."""

    async def bring(
        self, run: str, artifact: Artifact, elsewhere: msg.ModelElsewhere, on_bytes: Callable[[int], None]
    ) -> Assembled:
        """Bring a file into this node's files from the nodes that the coordinator named.

        Raises:
            Unassembled: They do not give it, or not all of it; what came stays.
            StoreError: The disk is full, or refuses.
        """
        ...

    async def have(self, run: str, artifact: Artifact) -> bool:
        """A run's newest model is here, and none of its older ones is lent any more; whether others can have it."""
        ...
