"""How a node proves to a relay who it is: the relay's random challenge, signed by the key of the node's certificate.

    node  -> relay   GREETING
    relay -> node    CHALLENGE_BYTES random bytes
    node  -> relay   u16 length, certificate (DER), u16 length, signature (ECDSA, SHA-256) over GREETING, challenge
    relay -> node    WELCOME; and later, when somebody calls: CALLED, and from then on the caller's bytes

Lengths are big-endian. Nothing of it is secret: who reads along, or takes such a connection over, sees ciphertext only.
"""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from covey.errors import IdentityError
from covey.wire.channels import certified_peer
from covey.wire.identities.identity import Identity

GREETING = b"covey/relay/1\n"
CHALLENGE_BYTES = 32
WELCOME, CALLED = b"\x01", b"\x02"
MAX_FIELD_BYTES = 8 << 10


def proof(identity: Identity, challenge: bytes) -> bytes:
    """What a node answers to a relay's challenge.

    Raises:
        IdentityError: Its key is not of the kind that nodes have.
    """
    key = serialization.load_pem_private_key(identity.key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("the TLS key of a node is an elliptic-curve key; ask for a new certificate")
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem).public_bytes(serialization.Encoding.DER)
    signature = key.sign(GREETING + challenge, ec.ECDSA(hashes.SHA256()))
    return b"".join(len(field).to_bytes(2, "big") + field for field in (certificate, signature))


def proven_name(shown: bytes, signature: bytes, challenge: bytes, authority: x509.Certificate) -> str:
    """The node that a proof is of.

    Raises:
        IdentityError: It proves nothing.
    """
    try:
        certificate = x509.load_der_x509_certificate(shown)
        certificate.verify_directly_issued_by(authority)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise IdentityError("the certificate's key is not an elliptic-curve key")
        key.verify(signature, GREETING + challenge, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError("the proof does not belong to a certificate of this relay's authority") from error
    peer = certified_peer(shown)
    now = dt.datetime.now(dt.UTC)
    if peer.role != "node" or not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise IdentityError(f"{peer.name!r} is no node, or its certificate is not valid now")
    return peer.name
