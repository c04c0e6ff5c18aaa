"""Who may take part, as far as it is kept in memory: the evicted, the nodes' signing keys, who is an adversary."""

from __future__ import annotations

from collections.abc import Iterable

from covey.coordinator.store_thread import StoreThread
from covey.errors import IdentityError


class Members:
    """The members of one federation.

    Args:
        store: The record.
        evicted: Who was shut out, nodes and admins, by the record.
    """

    def __init__(self, store: StoreThread, evicted: Iterable[str] = ()) -> None:
        self._store = store
        self.evicted = set(evicted)
        self.drills: dict[str, str] = {}
        """Node to the attack with which it last connected; only those that did."""
        self.keys: dict[str, tuple[str, bytes]] = {}
        """Node to the id and raw bytes of its present signing key, as far as they were looked up."""

    async def signing_key(self, node: str, key_id: str) -> bytes:
        """The raw public key with which a node signs now.

        Raises:
            IdentityError: Its present key has another id.
            NotFound: It is not enrolled.
        """
        known = self.keys.get(node)
        if known is None or known[0] != key_id:
            record = await self._store.call(self._store.store.node, node)
            known = self.keys[node] = (record.key_id, record.signing_key)
        if known[0] != key_id:
            raise IdentityError("the statement is not signed with this node's present key")
        return known[1]

    def forget_key(self, node: str) -> None:
        """A node has a new signing key."""
        self.keys.pop(node, None)
