"""The coordinator's keys: the federation's authority, its own identity and signing key, and the first admin's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covey.wire.channels import key_sha256
from covey.wire.identities.authority import Authority
from covey.wire.identities.identity import Identity, signing_key_in, tls_key_in
from covey.wire.identities.signing import SigningKey

KEYS = "keys"
ADMIN = "admin"
COORDINATOR = "coordinator"
FIRST_ADMIN = "local-admin"
RENEW_BEFORE_S = 90 * 86400.0
WORTH_S = 86400.0
"""A new certificate is worth it if it lasts at least so much longer."""


@dataclass(frozen=True)
class Keys:
    """What `keys/` holds."""

    authority: Authority
    signing_key: SigningKey
    server: Identity


def open_keys(data_dir: Path, now: float) -> Keys:
    """The keys of a data directory, made on first start; the server's certificate is renewed in time.

    An organisation with an authority of its own puts `authority.key` and `authority.crt` there before the first start.
    """
    folder = data_dir / KEYS
    return renewed(data_dir, Authority.open(folder), signing_key_in(folder / "signing.key"), now)


def renewed(data_dir: Path, authority: Authority, signing_key: SigningKey, now: float) -> Keys:
    """The keys with a server's certificate that lasts: a new one where the old one ends soon."""
    _issue(data_dir / KEYS, authority, signing_key, COORDINATOR, "coordinator", "", now)
    return Keys(authority, signing_key, Identity.load(data_dir / KEYS))


def write_admin_identity(data_dir: Path, keys: Keys, server: str, now: float) -> None:
    """The identity with which the command line on this machine reaches the coordinator, in `admin/`."""
    _issue(data_dir / ADMIN, keys.authority, keys.signing_key, FIRST_ADMIN, "admin", server, now)


def own_keys(data_dir: Path) -> dict[tuple[str, str], str]:
    """Of the identities that this machine makes for itself, which are on no record: name and role to the key's hash.

    Their certificates are made anew where they end or the address changes; the key stays.
    """
    return {(FIRST_ADMIN, "admin"): key_sha256(tls_key_in(data_dir / ADMIN / "tls.key").public_key())}


def _issue(
    folder: Path, authority: Authority, coordinator_key: SigningKey, name: str, role: str, server: str, now: float
) -> None:
    if (folder / "federation.json").exists():
        known = Identity.load(folder)
        same = (known.federation, known.server) == (authority.federation, server)
        # No certificate outlasts its authority: near the end of that, a new one would be no better.
        longest = authority.certificate.not_valid_after_utc.timestamp() - WORTH_S
        if same and known.expires_at > min(now + RENEW_BEFORE_S, longest):
            return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    issued = authority.issue(name, role, tls_key_in(folder / "tls.key").public_key())
    signing_key_in(folder / "signing.key")
    Identity.write(
        folder,
        name=name,
        role=role,
        federation=authority.federation,
        server=server,
        coordinator_key=coordinator_key.public_bytes,
        certificate=issued.pem,
        authority=authority.pem,
    )
