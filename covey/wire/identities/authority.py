"""The federation's certificate authority: made on first start, or given by the organisation."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from covey.errors import IdentityError
from covey.storage.files.spool import sync_folder

COORDINATOR_NAME = "coordinator.covey"
OWN_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Covey federation authority")])
"""Of an authority that a federation has made itself; an organisation's own has another."""
NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ROLES = ("node", "admin", "auditor", "member", "coordinator")
ENTRANT = "entrant"
"""None of the roles: a certificate of it leads past a handshake, and opens nothing behind it."""
ENTRY_DAYS = 60
"""Longer than a token lives: who lost the answer may ask again."""
VALID_DAYS = 365
AUTHORITY_DAYS = 3650
BACK_DATED = dt.timedelta(minutes=5)
"""So that a new certificate is valid for a machine whose clock is a little behind."""
AuthorityKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def check_name(name: str) -> str:
    """A name that may stand in a certificate.

    Raises:
        IdentityError: It may not; the message says what is allowed.
    """
    if not NODE_NAME.fullmatch(name):
        raise IdentityError(f"{name[:80]!r} is not a valid name: use a-z, 0-9 and '-', at most 63, no '-' first")
    return name


def federation_of(authority: x509.Certificate) -> str:
    """A federation's id: the first 16 bytes (hex) of the SHA-256 of its authority's certificate (DER)."""
    return hashlib.sha256(authority.public_bytes(serialization.Encoding.DER)).hexdigest()[:32]


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a secret file: mode 0600 from the first byte, `mode` at the end, complete or not at all, durable."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)
    temporary.replace(path)
    sync_folder(path.parent)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True)
class Issued:
    """A certificate, and what the record keeps of it."""

    pem: bytes
    serial: str
    expires_at: float


class Authority:
    """The one that issues end certificates: P-256 if made here, EC or RSA if the organisation's own."""

    def __init__(self, key: AuthorityKey, certificate: x509.Certificate) -> None:
        self._key, self.certificate = key, certificate
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.federation = federation_of(certificate)

    @property
    def key(self) -> AuthorityKey:
        """Its private key."""
        return self._key

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The authority whose `authority.key` and `authority.crt` are in a folder; made if neither is there.

        Raises:
            IdentityError: One of the files is missing or unusable, or they do not belong together.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_path, certificate_path = folder / "authority.key", folder / "authority.crt"
        if not key_path.exists():
            _make(key_path, certificate_path)
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
            raise IdentityError(
                f"the authority in {folder} cannot be read ({error}); put both authority.key (PEM, without a "
                "password) and authority.crt there, or neither to have a new one made"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise IdentityError("the authority's key must be an elliptic-curve or RSA key")
        _check_authority(key, certificate)
        return cls(key, certificate)

    def issue(self, name: str, role: str, public_key: ec.EllipticCurvePublicKey, days: int = VALID_DAYS) -> Issued:
        """A certificate for a name and role; it ends with the authority's own at the latest.

        Raises:
            IdentityError: The name or the role is not one that a certificate may have.
        """
        if role not in ROLES:
            raise IdentityError(f"role {role!r} is unknown; choose one of {', '.join(ROLES)}")
        return self._certify(name, role, public_key, days)

    def issue_entry(self, name: str, public_key: ec.EllipticCurvePublicKey) -> bytes:
        """A certificate (PEM) with which a token's holder gets to the enrolment service of the main port; no identity.

        Raises:
            IdentityError: The name is not one that a certificate may have.
        """
        return self._certify(name, ENTRANT, public_key, ENTRY_DAYS).pem

    def _certify(self, name: str, role: str, public_key: ec.EllipticCurvePublicKey, days: int) -> Issued:
        check_name(name)
        now = dt.datetime.now(dt.UTC)
        expires = min(now + dt.timedelta(days=days), self.certificate.not_valid_after_utc)
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role)]
        )
        host = COORDINATOR_NAME if role == "coordinator" else f"{name}.{role}.covey"
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role in ("node", "coordinator"):
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACK_DATED)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Issued(pem, f"{certificate.serial_number:x}", certificate.not_valid_after_utc.timestamp())


def _make(key_path: Path, certificate_path: Path) -> None:
    """Make a new authority, or finish one that a crash interrupted; a key that is there is never replaced."""
    staged = key_path.with_name(key_path.name + ".new")
    if not certificate_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(staged, private_pem(key))
        write_private(certificate_path, _self_signed(key).public_bytes(serialization.Encoding.PEM))
    if staged.exists():
        staged.replace(key_path)
        sync_folder(key_path.parent)


def _check_authority(key: AuthorityKey, certificate: x509.Certificate) -> None:
    if certificate.public_key() != key.public_key():
        raise IdentityError("authority.key is not the key of authority.crt")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise IdentityError("authority.crt may not issue certificates: it is not marked CA:TRUE")
    if certificate.not_valid_after_utc <= dt.datetime.now(dt.UTC):
        raise IdentityError(f"the authority expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(OWN_NAME)
        .issuer_name(OWN_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK_DATED)
        .not_valid_after(now + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def key_of_request(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request; nothing else of it counts.

    Raises:
        IdentityError: Not a signing request signed by its own P-256 key.
    """
    try:
        request = x509.load_der_x509_csr(csr)
        valid = request.is_signature_valid
        key = request.public_key()
    except Exception as error:
        raise IdentityError("the signing request cannot be read") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the signing request must be signed by its own P-256 key")
    return key
