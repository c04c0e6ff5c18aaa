"""Signatures by the key of a certificate (TLS), checked by anybody who has the federation's authority.

Ed25519 signing keys are known to a coordinator's record only. Where there is no record in common, what is signed comes
with the certificate of the key that made the signature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from covey.errors import IdentityError
from covey.wire.channels import Peer, certified_peer
from covey.wire.identities.authority import AuthorityKey, federation_of


class Certified(Protocol):
    """A statement's exact bytes, a signature over them, and the certificate (DER) of the key that made it."""

    # ruff: noqa: D102

    @property
    def statement(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...
    @property
    def certificate(self) -> bytes: ...


class Statement(Protocol):
    """What a statement of any kind says: of which federation and run it is."""

    @property
    def federation(self) -> str: ...
    @property
    def run(self) -> str: ...


S = TypeVar("S", bound=Statement)


@dataclass(frozen=True)
class Kind(Generic[S]):
    """One kind of what is signed.

    Attributes:
        what: It, for people.
        domain: What is signed begins with it, so that no signature stands for another kind.
        max_bytes: Of a statement, its signature and a certificate together.
        read: Reads a statement from anybody; IdentityError, LimitExceeded: it is none, or too long.
        signer: The certificate, if it is one of who has to sign this statement, from: the statement, the certificate
            that came along (DER), the authority's (PEM). IdentityError: it is not.
    """

    what: str
    domain: bytes
    max_bytes: int
    read: Callable[[bytes], S]
    signer: Callable[[S, bytes, bytes], x509.Certificate]


def opened(signed: Certified, kind: Kind[S], authority_pem: bytes, run: str | None) -> S:
    """What a signed statement from anybody says, once all about it was checked.

    Args:
        signed: It.
        kind: Which kind it must be of.
        authority_pem: Whose federation it must be of.
        run: Of which run it must be; None: the caller looks.

    Raises:
        IdentityError: It does not count; the text says why.
        LimitExceeded: It is too long.
    """
    if sum(map(len, (signed.statement, signed.signature, signed.certificate))) > kind.max_bytes:
        raise IdentityError(f"{kind.what} is longer than any that could be right")
    statement = kind.read(signed.statement)
    if statement.federation != federation_of(x509.load_pem_x509_certificate(authority_pem)):
        raise IdentityError(f"{kind.what} is of another federation")
    if run is not None and statement.run != run:
        raise IdentityError(f"{kind.what} is of another run")
    certificate = kind.signer(statement, signed.certificate, authority_pem)
    verify(certificate, kind.domain + signed.statement, signed.signature)
    return statement


def of_node(node: str, shown: bytes, authority_pem: bytes) -> x509.Certificate:
    """A certificate (DER) from anybody, if it is this node's. Raises IdentityError."""
    certificate, peer = issued(shown, authority_pem)
    if (peer.name, peer.role) != (node, "node"):
        raise IdentityError(f"it is signed by {peer.role} {peer.name!r}, and node {node!r} has to")
    return certificate


def certified_key(key_pem: bytes) -> AuthorityKey:
    """A private key that can sign. Raises IdentityError if it is neither an elliptic-curve nor an RSA key."""
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise IdentityError("only an elliptic-curve or RSA key can sign here")
    return key


def sign(key: AuthorityKey, data: bytes) -> bytes:
    """ECDSA with SHA-256 (DER form), or PKCS #1 v1.5 with SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def verify(certificate: x509.Certificate, data: bytes, signature: bytes) -> None:
    """Check that a certificate's key signed some bytes. Raises IdentityError."""
    key = certificate.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise IdentityError("the certificate has a key of a kind that signs nothing here")
    except InvalidSignature as error:
        raise IdentityError("it is not signed by the key of its certificate") from error


@lru_cache(maxsize=4096)
def issued(shown: bytes, authority_pem: bytes) -> tuple[x509.Certificate, Peer]:
    """A certificate (DER) from anybody, and who it is of; whether it is valid now is not looked at.

    Raises:
        IdentityError: The authority did not issue it, or it names nobody.
    """
    authority = x509.load_pem_x509_certificate(authority_pem)
    try:
        certificate = x509.load_der_x509_certificate(shown)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError("the certificate was not issued by this federation's authority") from error
    return certificate, certified_peer(shown)
