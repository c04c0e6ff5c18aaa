"""Enrolment: join tokens, and certificates for the keys that redeem them."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc.aio
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from covey.coordinator.keys.keys import COORDINATOR, FIRST_ADMIN
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.rate_limits import RateLimits
from covey.coordinator.store_thread import StoreThread
from covey.errors import Conflict, CoveyError, IdentityError, LimitExceeded, NotFound, SpecError
from covey.protos import admin_pb2, coordinator_pb2_grpc
from covey.protos import coordinator_pb2 as pb
from covey.storage.record.contract import EventRecord, NodeRecord, RedemptionRecord, Role, Store, TokenRecord
from covey.wire.channels import Peer
from covey.wire.errors import translated
from covey.wire.identities.authority import Authority, check_name, key_of_request
from covey.wire.identities.identity import ENROL_DOMAIN
from covey.wire.identities.signing import SigningKey, key_id, verify
from covey.wire.identities.tokens import MAX_USES, ROLES, SECRET_BYTES, JoinToken, entry_key
from covey.wire.listeners.buckets import Buckets
from covey.wire.listeners.connections import site_of

log = structlog.get_logger(room="coordinator")
DEFAULT_EXPIRES_S = 3600.0
MAX_EXPIRES_S = 30 * 86400.0
MAX_CSR_BYTES = 8192
NOTES = (20, 1 / 30)
"""How many refusals of one address are put on record at once, and how many a second after that."""
RENEWALS = (5, 1 / 60)
"""How often one node's certificate is renewed at once, and how often a second after that."""
RESERVED = (COORDINATOR, FIRST_ADMIN)
ANY_HOST = ("0.0.0.0", "[::]")

# What strangers are told. Nothing else of an error reaches them.
BUSY = "too many attempts to enrol; try again in a minute"
UNACCEPTABLE = "this join token is unknown or has expired; ask for a new one"
USED = "this join token was used with other keys; if that was not you, warn the coordinator's operator"
USED_UP = "every use of this join token is taken; ask for a new one"
TAKEN = "the name of this join token is taken; ask for a token with another name"
UNPROVEN = "the signing request, or the proof for the signing key, is not valid"


@dataclass
class Addresses:
    """Where the coordinator listens, known once it does, and how others reach it where that differs."""

    listen: str = ""
    enrol_listen: str = ""
    advertise: str | None = None
    advertise_enrol: str | None = None

    @property
    def are_one(self) -> bool:
        """Whether enrolment is at the main port, behind its handshake."""
        return self.listen == self.enrol_listen


@dataclass(frozen=True)
class EnrolmentServices:
    """What enrolment is given."""

    federation: str
    store: StoreThread
    authority: Authority
    signing_key: SigningKey
    members: Members
    addresses: Addresses
    clock: Callable[[], float]


async def create_token(
    services: EnrolmentServices, request: admin_pb2.CreateTokenRequest
) -> admin_pb2.CreateTokenReply:
    """Make and record a join token; only its hash is kept.

    Raises:
        SpecError: The role is unknown, or the token would live too long, or have too many uses.
        IdentityError: The name is not one that a certificate may have.
        Conflict: The name is enrolled already, or was evicted.
    """
    role = request.role or "node"
    if role not in ROLES:
        raise SpecError(f"role {role!r} is unknown; choose one of {', '.join(ROLES)}")
    uses = _uses(request, role)
    name = check_name(request.node or (f"{role}-{secrets.token_hex(4)}" if uses == 1 else role))
    if uses > 1:
        check_name(f"{name}-{MAX_USES}")
    elif name in RESERVED:
        raise Conflict(f"{name!r} is this coordinator's own; choose another name")
    expires_s = request.expires_s or DEFAULT_EXPIRES_S
    if not 0 < expires_s <= MAX_EXPIRES_S:
        raise SpecError(f"a token may live for at most {MAX_EXPIRES_S:g} seconds, not {expires_s:g}")
    now, addresses, store = services.clock(), services.addresses, services.store
    if uses == 1:
        await store.call(_check_free, store.store, name)
    secret = secrets.token_bytes(SECRET_BYTES)
    entry = services.authority.issue_entry(name, entry_key(secret).public_key()) if addresses.are_one else b""
    token = JoinToken(
        name=name,
        role=role,
        server=addresses.advertise or _reachable(addresses.listen),
        enrol=addresses.advertise_enrol or _reachable(addresses.enrol_listen),
        authority_pem=services.authority.pem,
        secret=secret,
        expires_at=now + expires_s,
        uses=uses,
        entry_pem=entry,
    )
    record = TokenRecord(token.secret_sha256, name, cast(Role, role), now, token.expires_at, uses)
    await store.call(store.store.add_token, record)
    return admin_pb2.CreateTokenReply(token=token.encode(), node=name, expires_at=token.expires_at, uses=uses)


def _uses(request: admin_pb2.CreateTokenRequest, role: str) -> int:
    uses = request.uses or 1
    if uses > MAX_USES:
        raise SpecError(f"a token has at most {MAX_USES} uses, not {uses}")
    if uses > 1 and role != "node":
        raise SpecError(f"only a token for nodes may have several uses; make one for each {role}")
    return uses


def _reachable(listen: str) -> str:
    """An address for others: where we listen on every interface, this machine's name."""
    host, _, port = listen.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ANY_HOST else listen


def _check_free(store: Store, name: str) -> None:
    """Refuse a name that cannot be enrolled.

    An evicted name stays shut out for good: callers are known by name, so its old certificate would be good.
    """
    try:
        state = store.node(name).state
    except NotFound:
        return
    if state == "active":
        raise Conflict(f"{name!r} is enrolled already; choose another name")
    if state == "evicted":
        raise Conflict(f"{name!r} was evicted, which is for good; choose another name")


@dataclass(frozen=True)
class _Keys:
    """The keys of one request, proven to be the caller's."""

    tls: ec.EllipticCurvePublicKey
    signing: bytes

    @property
    def sha256(self) -> str:
        """What a token is bound to: both keys."""
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        der = self.tls.public_bytes(serialization.Encoding.DER, spki)
        return hashlib.sha256(der + self.signing).hexdigest()


def _proven(request: pb.EnrolRequest | pb.RenewRequest) -> _Keys:
    try:
        if len(request.csr) > MAX_CSR_BYTES:
            raise LimitExceeded(f"a signing request of {len(request.csr)} bytes")
        verify(request.signing_key, request.csr, request.signing_proof, ENROL_DOMAIN)
        return _Keys(key_of_request(request.csr), request.signing_key)
    except (IdentityError, LimitExceeded) as error:
        raise IdentityError(UNPROVEN) from error


class EnrolmentService(coordinator_pb2_grpc.EnrolmentServicer):
    """Serves `covey.v1.Enrolment`, on its own listener, at a bounded rate."""

    def __init__(self, services: EnrolmentServices, limits: RateLimits | None = None) -> None:
        self._services, self._limits = services, limits or RateLimits()
        self._notes = Buckets(*NOTES)
        self._enrol = translated(self._answer)

    async def Enrol(self, request: pb.EnrolRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.EnrolReply:
        """Exchange a token and a signing request for a certificate."""
        reply: pb.EnrolReply = await self._enrol(request, context)
        return reply

    async def _answer(self, request: pb.EnrolRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.EnrolReply:
        site, name = site_of(context.peer()), ""
        try:
            self._limits.admit(site)
        except LimitExceeded as error:
            raise LimitExceeded(BUSY) from error
        try:
            keys = _proven(request)
            token = await self._token(request.token_secret)
            name = token.name
            redemption, node = await self._services.store.call(_redeem, self._services, token, keys)
            if node is not None:
                self._limits.forgive(site)
                await self._enrolled(node)
        except (IdentityError, Conflict) as error:
            await self._refused(site, name, error)
            raise
        return _reply(self._services, redemption.node, token.role, redemption.certificate)

    async def _token(self, secret: bytes) -> TokenRecord:
        store = self._services.store
        try:
            return await store.call(store.store.token, hashlib.sha256(secret).hexdigest())
        except NotFound as error:
            raise IdentityError(UNACCEPTABLE) from error

    async def _enrolled(self, node: NodeRecord) -> None:
        services = self._services
        services.members.evicted.discard(node.node)
        services.members.register(node)
        event = EventRecord(services.clock(), "enrolled", node=node.node, detail={"role": node.role})
        await services.store.call(services.store.store.add_event, event)
        log.info("enrolled", name=node.node, role=node.role)

    async def _refused(self, site: str, name: str, error: CoveyError) -> None:
        """Remember who was turned away, and why: what the caller is not told."""
        services, cause = self._services, error.__cause__
        detail = {"peer": site, "reason": str(error), "cause": str(cause or "")}
        if not self._notes.take(site, time.monotonic()):
            return
        event = EventRecord(services.clock(), "enrolment-refused", node=name, detail=detail)
        await services.store.call(services.store.store.add_event, event)


def _redeem(services: EnrolmentServices, token: TokenRecord, keys: _Keys) -> tuple[RedemptionRecord, NodeRecord | None]:
    """What a token gives to these keys, and the identity, if it is a new one.

    In the store's thread, where nobody else takes the name, or evicts it, between the look and the leap.
    """
    store = services.store.store
    if (redemption := store.redemption(token.secret_sha256, keys.sha256)) is not None:
        return redemption, None
    if not store.token(token.secret_sha256).uses_left:
        raise Conflict(USED if token.uses == 1 else USED_UP)
    if token.expires_at <= services.clock():
        raise IdentityError(UNACCEPTABLE)
    name = token.name if token.uses == 1 else store.next_name(token.name)
    issued = services.authority.issue(name, token.role, keys.tls)
    node = NodeRecord(
        node=name,
        role=token.role,
        state="active",
        enrolled_at=services.clock(),
        certificate_serial=issued.serial,
        certificate_expires_at=issued.expires_at,
        signing_key=keys.signing,
        key_id=key_id(keys.signing),
    )
    try:
        _check_free(store, name)
        return store.redeem_token(token.secret_sha256, keys.sha256, issued.pem, node), node
    except Conflict as error:
        raise Conflict(TAKEN) from error


async def renew(services: EnrolmentServices, peer: Peer, request: pb.RenewRequest) -> pb.EnrolReply:
    """A new certificate for an enrolled node's own name; its old signing key stays on record.

    The certificate with which it asks is good until the new one is used, and a moment longer: a node that is killed
    before it has the answer can ask again.

    Raises:
        IdentityError: The signing request or the proof is not valid, or the node is not enrolled any more.
        Conflict: The signing key is another identity's.
    """
    keys, store, node = _proven(request), services.store, peer.name
    if (await store.call(store.store.node, node)).state != "active":
        raise IdentityError(f"{node!r} is not enrolled any more")
    issued = services.authority.issue(node, "node", keys.tls)
    await store.call(
        store.store.renew_node,
        node,
        issued.serial,
        issued.expires_at,
        keys.signing,
        key_id(keys.signing),
        services.clock(),
        previous_serial=peer.serial,
    )
    services.members.renewed(node, issued.serial, peer.serial)
    services.members.forget_key(node)
    return _reply(services, node, "node", issued.pem)


def _reply(services: EnrolmentServices, name: str, role: str, certificate: bytes) -> pb.EnrolReply:
    return pb.EnrolReply(
        name=name,
        role=role,
        certificate=certificate,
        authority=services.authority.pem,
        federation=services.federation,
        coordinator_key=services.signing_key.public_bytes,
    )
