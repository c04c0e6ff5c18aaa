"""Who may take part, as it is kept in memory: all on record with their certificates, the evicted, keys, drills."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from covey.coordinator.store_thread import StoreThread
from covey.errors import IdentityError
from covey.storage.record.contract import NodeRecord
from covey.wire.channels import Peer

OVERLAP_S = 60.0
"""How long the certificate before is good once the newest one was used: what is under way with it may end."""
AGAIN = "join again with a new token"


@dataclass
class Registration:
    """What the record knows of one identity's certificates."""

    role: str
    serial: str
    previous: str = ""
    """Serial of the certificate with which the newest one was asked for; empty: none is good beside the newest."""
    previous_until: float = math.inf
    """When that ends (Unix seconds); infinite as long as the newest was not used: its owner may not have it yet."""
    settled: bool = False
    """Whether the record knows that the newest is in use."""


class Members:
    """The members of one federation.

    Args:
        store: The record.
        evicted: Who was shut out, nodes and admins, by the record.
        registered: Everybody on record.
    """

    def __init__(self, store: StoreThread, evicted: Iterable[str] = (), registered: Iterable[NodeRecord] = ()) -> None:
        self._store = store
        self.evicted = set(evicted)
        self.on_evicted: Callable[[str], None] = lambda name: None
        """Told of each identity that is shut out while the coordinator runs: its connections are to end."""
        self.drills: dict[str, str] = {}
        """Node to the attack with which it last connected; only those that did."""
        self.keys: dict[str, tuple[str, bytes]] = {}
        """Node to the id and raw bytes of its present signing key, as far as they were looked up."""
        self.own_keys: Mapping[tuple[str, str], str] = {}
        """Name and role to the hash of the TLS key, of those that this machine made for itself: the local admin."""
        self._registered: dict[str, Registration] = {}
        for record in registered:
            self.register(record)

    def register(self, record: NodeRecord) -> None:
        """An identity is on record, with its newest certificate."""
        self._registered[record.node] = Registration(record.role, record.certificate_serial, record.previous_serial)
        self.forget_key(record.node)

    def evict(self, name: str) -> None:
        """Shut somebody out."""
        self.evicted.add(name)
        self.on_evicted(name)

    def renewed(self, node: str, serial: str, asked_with: str) -> None:
        """A node has a new certificate; the one with which it asked is good until the new one is used."""
        known = self._registered.get(node)
        if known is not None:
            self._registered[node] = Registration(known.role, serial, asked_with)

    def admit(self, peer: Peer, now: float) -> None:
        """See that a certificate is the newest of somebody on record, in the role of the record.

        Args:
            peer: Who calls, as the certificate says.
            now: Unix time in seconds.

        Raises:
            IdentityError: It is not; the text says why.
        """
        who = f"{peer.role} {peer.name!r}"
        if peer.name in self.evicted:
            raise IdentityError(f"{who} was evicted")
        if peer.expires_at <= now:  # the handshake was before
            raise IdentityError(f"the certificate of {who} has expired")
        if self.own_keys.get((peer.name, peer.role)) == peer.key_sha256:
            return
        known = self._registered.get(peer.name)
        if known is None:
            raise IdentityError(f"{who} is not on this coordinator's record; {AGAIN}")
        if known.role != peer.role:
            raise IdentityError(f"{peer.name!r} is on record as {known.role}, not as {peer.role}")
        if peer.serial == known.serial:
            if known.previous and math.isinf(known.previous_until):
                known.previous_until = now + OVERLAP_S
        elif not known.previous or peer.serial != known.previous or now > known.previous_until:
            raise IdentityError(f"this certificate of {who} is not its newest one; use that one, or {AGAIN}")

    def settles(self, peer: Peer) -> bool:
        """Whether the record is to be told that the newest certificate of its owner is in use: true once."""
        known = self._registered.get(peer.name)
        due = known is not None and peer.serial == known.serial and bool(known.previous) and not known.settled
        if known is not None and due:
            known.settled = True
        return due

    async def present_key(self, node: str) -> tuple[str, bytes]:
        """Id and raw bytes of the public key with which a node signs now. Raises `NotFound`: it is not enrolled."""
        known = self.keys.get(node)
        if known is None:
            record = await self._store.call(self._store.store.node, node)
            known = self.keys[node] = (record.key_id, record.signing_key)
        return known

    def forget_key(self, node: str) -> None:
        """A node has a new signing key."""
        self.keys.pop(node, None)
