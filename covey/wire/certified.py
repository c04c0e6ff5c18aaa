"""Signatures by the key of a certificate (TLS), checked by anybody who has the federation's authority.

Ed25519 signing keys are known to a coordinator's record only. Where there is no record in common, what is signed comes
with the certificate of the key that made the signature.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from covey.errors import IdentityError
from covey.wire.channels import Peer, certified_peer
from covey.wire.identities.authority import AuthorityKey


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
