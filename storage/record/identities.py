"""Enrolled identities, their keys, and join tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

from covey.storage.record.records import NodeRecord, RedemptionRecord, Role, TokenRecord


class Identities(ABC):
    """Nodes, admins and auditors by name; tokens by the hash of their secret."""

    @abstractmethod
    def add_token(self, token: TokenRecord) -> None:
        """Record a join token that nobody has used."""

    @abstractmethod
    def token(self, secret_sha256: str) -> TokenRecord:
        """A token by the hash of its secret. Raises `NotFound`."""

    @abstractmethod
    def tokens(self, *, skip: int = 0, limit: int | None = None) -> list[TokenRecord]:
        """Join tokens, the newest first.

        Args:
            skip: How many of the newest are passed over.
            limit: At most so many; None: all.
        """

    @abstractmethod
    def revoke_tokens(self, token: str) -> list[TokenRecord]:
        """Let tokens that have uses left be redeemed no more: they expire at 0. Returns them as they are then.

        Args:
            token: The beginning of a secret's hash, or the name that tokens are for.

        Raises:
            NotFound: No such token, or none of them has uses left.
        """

    @abstractmethod
    def redemption(self, secret_sha256: str, csr_key_sha256: str) -> RedemptionRecord | None:
        """What a pair of keys got for a token; None: nothing yet."""

    @abstractmethod
    def next_name(self, prefix: str) -> str:
        """PREFIX-N with the next number above all those of identities, whatever became of them, and of tokens."""

    @abstractmethod
    def redeem_token(
        self, secret_sha256: str, csr_key_sha256: str, certificate: bytes, node: NodeRecord
    ) -> RedemptionRecord:
        """Take one use of a token for these keys, keep the certificate, and enrol the identity, all at once.

        An identity that was evicted, or has left, is enrolled again. With the same keys a second time: changes
        nothing and returns what is stored. Whether the token has expired is the caller's to look at.

        Raises:
            Conflict: The token has no use left for other keys, or is for another name, or the name belongs to an
                active identity, or the signing key to another one.
            NotFound: No such token.
        """

    @abstractmethod
    def renew_node(
        self,
        node: str,
        serial: str,
        expires_at: float,
        signing_key: bytes,
        key_id: str,
        at: float,
        *,
        previous_serial: str = "",
    ) -> None:
        """Give a node a new certificate and signing key; the old key stays on record. Raises `NotFound`.

        Args:
            node: Which one.
            serial: Of its new certificate.
            expires_at: When that ends.
            signing_key: Raw public key.
            key_id: Its id.
            at: When it was renewed.
            previous_serial: Of the certificate with which it asked, good until the new one is used.
        """

    @abstractmethod
    def settle_node(self, node: str) -> None:
        """The newest certificate of a node is in use: the one before is good no more. Raises `NotFound`."""

    @abstractmethod
    def signing_key(self, key_id: str) -> bytes:
        """A signing key, past or present, by its id. Raises `NotFound`."""

    @abstractmethod
    def node(self, node: str) -> NodeRecord:
        """An identity by its name. Raises `NotFound`."""

    @abstractmethod
    def nodes(self, *, role: Role = "node", after: str = "", limit: int | None = None) -> list[NodeRecord]:
        """Identities of a role, by name, evicted ones too, with their counts of verdicts.

        Args:
            role: The role.
            after: Only names that come after this one.
            limit: At most so many; None: all.
        """

    @abstractmethod
    def seen(
        self, node: str, at: float, *, version: str = "", device: str = "", tasks: Sequence[str] | None = None
    ) -> None:
        """Note that a node was here, and what it said of itself (empty: as before). Raises `NotFound`."""

    @abstractmethod
    def note_seen(self, times: Mapping[str, float]) -> None:
        """Note when nodes were heard last, all at once; names that are not there are passed over."""

    @abstractmethod
    def set_node_state(self, node: str, state: Literal["active", "evicted", "left"]) -> None:
        """Evict a node, or let it leave. Raises `NotFound`."""
