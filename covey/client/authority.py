"""A federation without a coordinator: its authority in a folder, what that certifies, and whom it evicts."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from covey.errors import Conflict, CoveyError, IdentityError
from covey.gossip.ledger import Incarnation
from covey.node.peers.calls import bring_notice
from covey.node.peers.roster import Member, Roster
from covey.texts import read_pem
from covey.wire.channels import key_sha256
from covey.wire.evictions import FOR_GOOD, EvictionStatement, SignedNotice, sign_eviction
from covey.wire.identities.authority import VALID_DAYS, Authority, check_name, key_of_request
from covey.wire.identities.identity import Identity, signing_request, tls_key_in

REQUEST_FILE = "request.csr"
PASSING_ADMIN = "authority"
"""Who brings a notice that the authority's own key signs."""


@dataclass(frozen=True)
class AuthorityInfo:
    """An authority. `created`: whether it was made just now; `expires_at` in Unix seconds."""

    folder: Path
    federation: str
    created: bool
    expires_at: float


@dataclass(frozen=True)
class Certified:
    """What was certified.

    Attributes:
        name: Whom.
        role: As what.
        folder: Where key and certificate are, or what belongs beside the keys.
        federation: Whose authority did it.
        fingerprint: SHA-256 (hex) of the certificate's public key: what a peers file names.
        expires_at: When it ends, in Unix seconds.
        has_keys: Whether the keys are there, too.
    """

    name: str
    role: str
    folder: Path
    federation: str
    fingerprint: str
    expires_at: float
    has_keys: bool


@dataclass(frozen=True)
class Request:
    """What a machine asks to have certified: its name, the file to bring, and its key's fingerprint."""

    name: str
    path: Path
    fingerprint: str


@dataclass(frozen=True)
class Eviction:
    """An eviction, and who was told: those that it was new to, those that knew, and why others could not be reached.

    Who took the notice about the incarnation, and not the one for good, is in `not_for_good`, with its reason, as well.
    """

    run: str
    peer: Incarnation
    told: tuple[str, ...]
    knew: tuple[str, ...]
    unreachable: dict[str, str]
    not_for_good: dict[str, str]


def init(folder: Path) -> AuthorityInfo:
    """The authority in a folder; made if there is none.

    Raises:
        IdentityError: What is there cannot be used.
    """
    created = not (folder / "authority.key").exists()
    authority = Authority.open(folder)
    expires_at = authority.certificate.not_valid_after_utc.timestamp()
    return AuthorityInfo(folder, authority.federation, created, expires_at)


def _opened(folder: Path) -> Authority:
    if not (folder / "authority.key").exists():
        raise IdentityError(f"there is no authority in {folder}; make one: covey ca init --dir {folder}")
    return Authority.open(folder)


def request(name: str, folder: Path) -> Request:
    """Make keys in a folder (those that are there stay), and a request for a certificate beside them.

    Raises:
        IdentityError: The name is not one that a certificate may have, or a key file is unusable.
    """
    der, _, _ = signing_request(folder, name)
    path = folder / REQUEST_FILE
    path.write_bytes(x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM))
    return Request(name, path, key_sha256(tls_key_in(folder / "tls.key").public_key()))


def issue(
    authority_folder: Path, name: str, to: Path, *, role: str = "node", days: int = VALID_DAYS, csr: Path | None = None
) -> Certified:
    """Certify a name: for keys that are made in the folder `to` (or are there), or for those of a request.

    Where there is an identity of that name and federation already, it gets a new certificate for the keys it has.

    Raises:
        IdentityError: The authority, the name or the request cannot be used.
        Conflict: There is another identity in the folder.
    """
    authority = _opened(authority_folder)
    check_name(name)
    if (to / "federation.json").exists():
        _same(to, name, role, authority)
        if csr is None and not all((to / file).exists() for file in ("tls.key", "signing.key")):
            raise IdentityError(f"{to} holds the certificate of {name!r}, its keys are elsewhere: give its --request")
    if csr is None:
        signing_request(to, name)
        key = tls_key_in(to / "tls.key").public_key()
    else:
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = _requested(csr, name)
        _not_of_others(to, key)
    issued = authority.issue(name, role, key, days)
    Identity.write(
        to,
        name=name,
        role=role,
        federation=authority.federation,
        server="",
        coordinator_key=b"",
        certificate=issued.pem,
        authority=authority.pem,
    )
    return Certified(name, role, to, authority.federation, key_sha256(key), issued.expires_at, csr is None)


def _same(folder: Path, name: str, role: str, authority: Authority) -> None:
    existing = Identity.whose(folder)
    if existing != (name, role, authority.federation):
        raise Conflict(f"{folder} holds the identity of {existing[1]} {existing[0]!r} already; give another folder")


def _not_of_others(folder: Path, key: ec.EllipticCurvePublicKey) -> None:
    """A certificate for another key than the one beside it would make both useless."""
    path = folder / "tls.key"
    if path.exists() and tls_key_in(path).public_key() != key:
        raise Conflict(f"the request is for another key than {path}; give another folder with --to")


def _requested(path: Path, name: str) -> ec.EllipticCurvePublicKey:
    """The key of a request for this name."""
    try:
        csr = x509.load_pem_x509_csr(read_pem(path))
    except (OSError, ValueError) as error:
        raise IdentityError(f"{path} cannot be read as a request: {error}; make one: covey ca request") from error
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [str(name_attribute.value) for name_attribute in names] != [name]:
        raise IdentityError(f"{path} is not a request of {name!r}; ask its sender for the name")
    return key_of_request(csr.public_bytes(serialization.Encoding.DER))


def evict(
    peer: Incarnation,
    run: str,
    roster: Roster,
    *,
    reason: str,
    for_good: bool = False,
    authority_folder: Path | None = None,
    identity_folder: Path | None = None,
) -> Eviction:
    """Sign that an incarnation of a node is out of a run, and tell every node that can be called.

    Whoever hears of it says it on. It cannot be taken back.

    Args:
        peer: Who.
        run: Of which run.
        roster: Whom to tell.
        reason: For people.
        for_good: Not this incarnation only: every other one too, also those to come.
        authority_folder: Signs with the authority's own key; or
        identity_folder: signs with an admin's.

    Raises:
        IdentityError: Nobody may sign with that.
        CoveyError: Nobody could be told.
    """
    if peer.node not in roster.members:
        raise IdentityError(f"the peers file names no {peer.node!r}")
    with _signer(authority_folder, identity_folder) as (admin, sign):
        statement = EvictionStatement(admin.federation, run, peer.node, peer.number, reason, time.time())
        notices = [sign(statement)]  # which peers of an older version understand, too
        if for_good:
            notices.append(sign(replace(statement, covey=FOR_GOOD)))
        outcomes = asyncio.run(_tell_all(notices, roster, admin))
    reached = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, _Reached)}
    told = tuple(name for name, outcome in reached.items() if outcome.is_new)
    knew = tuple(name for name, outcome in reached.items() if not outcome.is_new)
    unreachable = {name: str(outcome) for name, outcome in outcomes.items() if isinstance(outcome, CoveyError)}
    not_for_good = {name: outcome.refused for name, outcome in reached.items() if outcome.refused}
    if not told and not knew:
        reasons = "; ".join(f"{name}: {why}" for name, why in unreachable.items())
        raise CoveyError(
            f"nobody could be told: {reasons}. Nodes that are through with the run answer no more: if all are, there "
            "is nothing left to evict it from, and covey gossip audit says what it gave; else run this again where one "
            "can be called, or when one is started again"
        )
    return Eviction(run, peer, told, knew, unreachable, not_for_good)


@dataclass(frozen=True)
class _Reached:
    """A peer that took notices: whether one was new there, and why it did not take the last one; empty: it did."""

    is_new: bool
    refused: str = ""


Sign = Callable[[EvictionStatement], SignedNotice]


@contextmanager
def _signer(authority_folder: Path | None, identity_folder: Path | None) -> Iterator[tuple[Identity, Sign]]:
    """Who brings the notice, and what signs it."""
    if identity_folder is not None:
        admin = Identity.load(identity_folder)
        if admin.role != "admin":
            raise IdentityError(f"{admin.name!r} is a {admin.role}: evictions are signed by an admin")
        yield admin, lambda statement: sign_eviction(statement, admin.key_pem, admin.certificate_pem)
    elif authority_folder is not None:
        authority = _opened(authority_folder)
        key = (authority_folder / "authority.key").read_bytes()
        with tempfile.TemporaryDirectory(prefix="covey-") as passing:
            issue(authority_folder, PASSING_ADMIN, Path(passing) / "admin", role="admin", days=1)
            yield (
                Identity.load(Path(passing) / "admin"),
                lambda statement: sign_eviction(statement, key, authority.pem),
            )
    else:
        raise IdentityError("say who signs: an authority's folder, or an admin's identity")


async def _tell_all(
    notices: Sequence[SignedNotice], roster: Roster, admin: Identity
) -> dict[str, _Reached | CoveyError]:
    callable_members = [member for member in roster.members.values() if member.address]
    outcomes = await asyncio.gather(*(_tell(notices, member, admin) for member in callable_members))
    return {member.name: outcome for member, outcome in zip(callable_members, outcomes, strict=True)}


async def _tell(notices: Sequence[SignedNotice], member: Member, admin: Identity) -> _Reached | CoveyError:
    are_new: list[bool] = []
    try:
        for notice in notices:
            are_new.append(await bring_notice(notice, member, admin))
    except CoveyError as error:
        return _Reached(any(are_new), str(error)) if are_new else error
    return _Reached(any(are_new))
