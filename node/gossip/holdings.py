"""The models that a gossip node gives to peers: what it has in use just now, and its newest for those that join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from covey.artifact import Artifact
from covey.errors import NotFound
from covey.gossip.ledger import Incarnation
from covey.node.models.holders import Holders
from covey.node.models.ports import Lent, Shelf
from covey.node.ports import Files

LEASE_S = 600.0
"""How long a model stays for a peer that was told of it."""


class ModelShelf(Shelf):
    """The models of one node's part in a run: of others there are none in its files.

    Args:
        holders: Of the run's files on this node: those in use are lent.
        newest: The model that a joining peer is given, and its step. Raises NotReady, or NotFound: it does not join.
    """

    def __init__(self, holders: Holders[Files], newest: Callable[[Incarnation], tuple[Artifact, int]]) -> None:
        self._holders, self._files, self._newest = holders, holders.files, newest
        self._leases: dict[Incarnation, tuple[Artifact, asyncio.TimerHandle]] = {}

    def newest(self, peer: Incarnation) -> tuple[Artifact, int]:
        """The model for a peer that joins, and its step: it stays for ten minutes, or until the peer asks again.

        Raises:
            NotReady: There is none now.
            NotFound: It takes part already: a model would be kept for nothing.
        """
        model, step = self._newest(peer)
        self._holders.hold(model.digest)
        self._end(peer)
        self._leases[peer] = model, asyncio.get_running_loop().call_later(LEASE_S, self._end, peer)
        return model, step

    def _end(self, peer: Incarnation) -> None:
        lease = self._leases.pop(peer, None)
        if lease is not None:
            lease[1].cancel()
            self._holders.release(lease[0].digest)

    @contextmanager
    def lend(self, digest: str) -> Iterator[Lent]:
        """As `Shelf.lend`."""
        path = self._files.path(digest)
        if not self._holders.has(digest) or not path.exists():
            raise NotFound("this node does not have that model any more")
        with self._holders.holding(digest):
            yield Lent(path)

    def check(self, digest: str) -> bool:
        """As `Shelf.check`."""
        return self._files.check(digest)

    def close(self) -> None:
        """Nothing stays for anybody any more."""
        for peer in list(self._leases):
            self._end(peer)
