"""Notices that an incarnation of a node is out, or the node for good: signed by the authority, or an admin of it.

Nodes of a run without a coordinator have no record in common that says who may decide: the certificate comes along, and
everybody checks for themselves that the authority issued it, and for which role.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import Field, TypeAdapter, with_config

from covey.errors import IdentityError
from covey.wire.certified import Kind, certified_key, issued, opened, sign
from covey.wire.identities.authority import Authority
from covey.wire.identities.canonical import MAX_COUNT, STRICT, Finite, Text, canonical_json, read_canonical

MAX_STATEMENT_BYTES = 4096
MAY_EVICT = ("admin", "coordinator")
ONCE: Literal["eviction/1"] = "eviction/1"
"""An incarnation is out. Its node may come back as the next one, without the mass."""
FOR_GOOD: Literal["eviction/2"] = "eviction/2"
"""A node is out with every incarnation, whatever its number."""
CLOCKS_S = 300.0
"""So far may the clock of who signs be ahead of that of its certificate's authority."""


@with_config(STRICT)
@dataclass(frozen=True)
class EvictionStatement:
    """That an incarnation of a node is out of a run; for good: with it every other one, and those to come."""

    federation: Text
    run: Text
    node: Text
    incarnation: Annotated[int, Field(ge=1, lt=MAX_COUNT)]
    reason: Text
    at: Finite
    """Unix seconds."""
    covey: Literal["eviction/1", "eviction/2"] = field(default=ONCE, kw_only=True, repr=False)

    @property
    def is_for_good(self) -> bool:
        """Whether the node is out, and not this incarnation only."""
        return self.covey == FOR_GOOD

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes."""
        return canonical_json(vars(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> EvictionStatement:
        """Read a notice.

        Raises:
            IdentityError: It is none.
            LimitExceeded: It is too long.
        """
        return read_canonical(_EVICTION, raw, (ONCE, FOR_GOOD), MAX_STATEMENT_BYTES)


_EVICTION = TypeAdapter(EvictionStatement)


@dataclass(frozen=True)
class SignedNotice:
    """A statement's exact bytes, a signature over them, and the certificate (DER) of the key that made it."""

    statement: bytes
    signature: bytes
    certificate: bytes


def sign_eviction(statement: EvictionStatement, key_pem: bytes, certificate_pem: bytes) -> SignedNotice:
    """Sign a notice with the key of a certificate: the authority's own, or an admin's TLS key.

    Raises:
        IdentityError: The key is no EC or RSA key.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem).public_bytes(serialization.Encoding.DER)
    raw = statement.to_bytes()
    return SignedNotice(raw, sign(certified_key(key_pem), EVICTED.domain + raw), certificate)


def sign_as_authority(statement: EvictionStatement, authority: Authority) -> SignedNotice:
    """Sign a notice as the authority itself."""
    raw = statement.to_bytes()
    shown = authority.certificate.public_bytes(serialization.Encoding.DER)
    return SignedNotice(raw, sign(authority.key, EVICTED.domain + raw), shown)


def opened_eviction(notice: SignedNotice, authority_pem: bytes) -> EvictionStatement:
    """What a notice from anybody says, once everything about it was checked but the run that it is of.

    Raises:
        IdentityError: It is not signed by who may, or not a statement of this federation.
        LimitExceeded: It is too long.
    """
    return opened(notice, EVICTED, authority_pem, None)


def _signer(statement: EvictionStatement, shown: bytes, authority_pem: bytes) -> x509.Certificate:
    """The certificate of who signed, if it is one that counts."""
    authority, at = x509.load_pem_x509_certificate(authority_pem), statement.at
    if shown == authority.public_bytes(serialization.Encoding.DER):
        return authority
    certificate, peer = issued(shown, authority_pem)
    if peer.role not in MAY_EVICT:
        raise IdentityError(f"{peer.name!r} is a {peer.role}: notices of eviction are signed by an admin")
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins.timestamp() - CLOCKS_S <= at <= ends.timestamp():
        raise IdentityError(f"the certificate of {peer.name!r} was not valid when the notice was signed")
    if at > dt.datetime.now(dt.UTC).timestamp() + CLOCKS_S:
        raise IdentityError("the notice is from the future; is this machine's clock right?")
    return certificate


EVICTED = Kind("a notice of eviction", b"covey/eviction/1\n", 16 << 10, EvictionStatement.from_bytes, _signer)
