"""Who we are: a folder with keys and a certificate, for nodes, admins and the coordinator alike.

tls.key  tls.crt  authority.crt  signing.key  federation.json
"""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, ValidationError

from covey.errors import IdentityError
from covey.texts import read_pem
from covey.validation import explain
from covey.wire.identities.authority import check_name, federation_of, private_pem, write_private
from covey.wire.identities.signing import SigningKey

ENROL_DOMAIN = b"covey/enrol/1\n"


def signing_key_in(path: Path) -> SigningKey:
    """The Ed25519 key in a file; made if there is none. Raises `IdentityError` if it is another kind."""
    if not path.exists():
        raw = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, raw)
    key = _key_in(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} is not an Ed25519 key")
    return SigningKey(key)


def tls_key_in(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a file; made if there is none. Raises `IdentityError` if it is another kind."""
    if not path.exists():
        write_private(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _key_in(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(f"{path} is not a P-256 key")
    return key


def _key_in(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(read_pem(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
        raise IdentityError(f"{path} cannot be read as a private key (PEM, without a password): {error}") from error


def signing_request(folder: Path, name: str) -> tuple[bytes, bytes, bytes]:
    """Keys in a folder (made if missing), and what proves them: CSR (DER), raw signing key, proof.

    Called again it asks for the same keys, so that a lost answer can be asked for again.

    Raises:
        IdentityError: The name is not one that a certificate may have, or a key file is unusable.
    """
    check_name(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    tls_key, signing_key = tls_key_in(folder / "tls.key"), signing_key_in(folder / "signing.key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(tls_key, hashes.SHA256())
    der = csr.public_bytes(serialization.Encoding.DER)
    return der, signing_key.public_bytes, signing_key.sign(der, ENROL_DOMAIN)


class _Facts(BaseModel):
    """What `federation.json` holds."""

    model_config = ConfigDict(strict=True, frozen=True)

    federation: str
    name: str
    role: str
    server: str
    coordinator_key: str
    """In hex."""


@dataclass(frozen=True)
class Identity:
    """A loaded identity.

    Attributes:
        name: What the certificate names; for a node its id.
        role: `node`, `admin`, `auditor` or `coordinator`.
        federation: Which federation certified it (hex).
        server: The coordinator's main listener, `host:port`, as it was at enrolment.
        coordinator_key: Raw Ed25519 public key that signs receipts and commits.
        key_pem: The TLS key: secret.
        certificate_pem: The certificate for it.
        authority_pem: The federation's authority, the only one that is trusted.
        signing_key: Signs updates.
        expires_at: When the certificate ends, in Unix seconds.
    """

    name: str
    role: str
    federation: str
    server: str
    coordinator_key: bytes
    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    authority_pem: bytes
    signing_key: SigningKey
    expires_at: float

    @staticmethod
    def whose(folder: Path) -> tuple[str, str, str]:
        """Name, role and federation of the identity in a folder; its keys may be elsewhere.

        Raises:
            IdentityError: There is none, or it cannot be read.
        """
        path = folder / "federation.json"
        try:
            facts = _Facts.model_validate_json(read_pem(path))
        except (OSError, ValueError) as error:
            problem = explain(error, _Facts) if isinstance(error, ValidationError) else str(error)
            raise IdentityError(f"{path} cannot be read ({problem})") from error
        return facts.name, facts.role, facts.federation

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read an identity.

        Raises:
            IdentityError: There is none, or a file of it is missing or broken; the message says what to do.
        """
        if not (folder / "federation.json").exists():
            raise IdentityError(f"there is no identity in {folder}; join a federation first: covey node join TOKEN")
        for name in ("tls.key", "signing.key"):
            if not (folder / name).exists():
                raise IdentityError(f"the identity in {folder} has no {name}; join again with a new token")
        try:
            facts = _Facts.model_validate_json(read_pem(folder / "federation.json"))
            certificate_pem = read_pem(folder / "tls.crt")
            authority_pem = read_pem(folder / "authority.crt")
            x509.load_pem_x509_certificate(authority_pem)
            return cls(
                name=facts.name,
                role=facts.role,
                federation=facts.federation,
                server=facts.server,
                coordinator_key=bytes.fromhex(facts.coordinator_key),
                key_pem=read_pem(folder / "tls.key"),
                certificate_pem=certificate_pem,
                authority_pem=authority_pem,
                signing_key=signing_key_in(folder / "signing.key"),
                expires_at=x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc.timestamp(),
            )
        except (OSError, ValueError) as error:
            problem = explain(error, _Facts) if isinstance(error, ValidationError) else str(error)
            raise IdentityError(
                f"the identity in {folder} is broken ({problem}); join again with a new token"
            ) from error

    @staticmethod
    def write(
        folder: Path,
        *,
        name: str,
        role: str,
        federation: str,
        server: str,
        coordinator_key: bytes,
        certificate: bytes,
        authority: bytes,
    ) -> None:
        """Complete a folder that holds the keys already; `federation.json` last: all is there, or nothing."""
        write_private(folder / "tls.crt", certificate)
        write_private(folder / "authority.crt", authority)
        facts = {
            "federation": federation,
            "name": name,
            "role": role,
            "server": server,
            "coordinator_key": coordinator_key.hex(),
        }
        write_private(folder / "federation.json", json.dumps(facts, indent=2).encode())

    def explain(self, unix_s: float | None = None) -> str:
        """Why a server would refuse this certificate, as far as can be seen here; empty if nothing is wrong.

        A refused handshake tells the client nothing but that the connection was closed.

        Args:
            unix_s: When; default: now, by the computer's clock.
        """
        certificate = x509.load_pem_x509_certificate(self.certificate_pem)
        authority = x509.load_pem_x509_certificate(self.authority_pem)
        again = "join again with a new token"
        if not self.server:  # certified by an authority in a folder
            again = f"have the same keys certified again: covey ca issue {self.name}"
        now = dt.datetime.fromtimestamp(time.time() if unix_s is None else unix_s, dt.UTC)
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return f"the certificate of {self.name!r} was not issued by this federation's authority; {again}"
        if federation_of(authority) != self.federation:
            return f"authority.crt is not the authority of federation {self.federation}; {again}"
        if not self._has_its_key(certificate):
            return f"tls.key is not the key of the certificate of {self.name!r}; {again}"
        for whose, dated in (
            (f"the certificate of {self.name!r}", certificate),
            ("the federation's authority", authority),
        ):
            if dated.not_valid_after_utc <= now:
                return f"{whose} expired at {dated.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; {again}"
            if dated.not_valid_before_utc > now:
                begins = f"{dated.not_valid_before_utc:%Y-%m-%d %H:%M}"
                return f"{whose} is not valid before {begins} UTC; is this machine's clock right?"
        return ""

    def _has_its_key(self, certificate: x509.Certificate) -> bool:
        try:
            key = serialization.load_pem_private_key(self.key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return certificate.public_key() == key.public_key()
