"""TLS channels and servers: mutual, names checked, message limits as gRPC has them."""

from __future__ import annotations

import functools
import hashlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from covey.errors import CoveyError, IdentityError
from covey.wire.addresses import host_and_port
from covey.wire.identities.authority import COORDINATOR_NAME, ROLES, check_name
from covey.wire.identities.identity import Identity
from covey.wire.proxies import proxy_options

KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 30_000
"""As long as sessions and transfers bear silence: over a slow link an answer waits behind bulk data."""
WINDOW_BYTES = 8 << 20
"""How much of a stream may be under way before its receiver has taken it. gRPC's own estimate (BDP probing) grows
without need on a fast link: with 8 nodes and models of 100 MB the coordinator held 230 MB in such buffers, and holds
75 MB with this. It bounds one connection to 8 MiB a round trip, 80 MB/s at 100 ms; a large file therefore takes several
where the way is long (`covey.wire.transfers.lanes`)."""
HANDSHAKE_MS = 10_000
"""So long a stranger may take for its handshake."""
AGE_GRACE_MS = 5000
Options = list[tuple[str, Any]]
Context = grpc.aio.ServicerContext[Any, Any]
WINDOW: Options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", WINDOW_BYTES)]


def server_options(*, streams: int = 32, idle_s: float = 300.0, age_s: float | None = None) -> Options:
    """Options of every server: clients may ping every ten seconds, also without calls.

    Args:
        streams: How many calls one connection may carry at once.
        idle_s: A connection without a call ends after so long.
        age_s: One that is older than this ends, whatever it carries; None: never.
    """
    ages = (
        []
        if age_s is None
        else [("grpc.max_connection_age_ms", int(1000 * age_s)), ("grpc.max_connection_age_grace_ms", AGE_GRACE_MS)]
    )
    return [
        *ages,
        ("grpc.max_concurrent_streams", streams),
        ("grpc.max_connection_idle_ms", int(1000 * idle_s)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # Else a second daemon on the same port would silently get half of the connections.
        ("grpc.so_reuseport", 0),
        *WINDOW,
    ]


def channel_options(server_name: str, dummy: str) -> Options:
    """Options of every channel; channels with different `dummy` do not share a connection."""
    return [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # grpc.min_reconnect_backoff_ms stays as it is: it also bounds how long a handshake may take.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 3000),
        ("covey.channel", dummy),
        *WINDOW,
    ]


def channel_credentials(identity: Identity, trusted: bytes = b"") -> grpc.ChannelCredentials:
    """What a client shows and trusts: the authority, or only the certificate `trusted` (PEM)."""
    return grpc.ssl_channel_credentials(trusted or identity.authority_pem, identity.key_pem, identity.certificate_pem)


def secure_channel(
    address: str, identity: Identity, *, server_name: str = COORDINATOR_NAME, dummy: str = "", trusted: bytes = b""
) -> grpc.aio.Channel:
    """A mutually authenticated channel that accepts only `server_name`, and only with `trusted` where that is given."""
    options = [*channel_options(server_name, dummy), *proxy_options(address)]
    return grpc.aio.secure_channel(address, channel_credentials(identity, trusted), options=options)


def listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials, option: str) -> int:
    """Bind a server; the port.

    Args:
        server: Not yet started.
        address: `HOST:PORT`; port 0 takes any.
        credentials: What it shows and wants.
        option: Of the command line, for the message.

    Raises:
        CoveyError: The address cannot be had; the message says why, and what to do.
    """
    problem = _why_not(address)  # gRPC would write of it to standard error
    try:
        if not problem:
            return server.add_secure_port(address, credentials)
    except RuntimeError:
        problem = "gRPC refuses it"
    raise CoveyError(
        f"{option} {address} cannot be listened on: {problem}; "
        f"end what uses it, or give {option} an address of this machine and a free port (port 0 takes any)"
    )


def _why_not(address: str) -> str:
    """Why nobody can listen on an address; empty: one of those that it stands for is free."""
    host, port = host_and_port(address)
    problem = "it has no address"
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(place)
                    probe.listen(1)
                    return ""
            except OSError as error:
                problem = error.strerror or str(error)
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    return problem


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """The main listener's: without a certificate of our authority nobody gets past the handshake."""
    return grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)], identity.authority_pem, require_client_auth=True
    )


def renewing_credentials(newest: Callable[[], Identity], *, mutual: bool) -> grpc.ServerCredentials:
    """The coordinator's: the identity is asked for at each handshake, so that a renewed one counts at once.

    Args:
        newest: Gives the identity to show.
        mutual: The main listener: as `server_credentials`. Else the enrolment listener: server-side TLS only.
    """
    shown, lock = newest(), threading.Lock()

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(shown.key_pem, shown.certificate_pem)], shown.authority_pem if mutual else None
        )

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # Only what is new may be given: with each configuration gRPC frees the one before, which a handshake that is
        # just going on may still use. A program that gave one at every handshake could be ended by connecting to it.
        nonlocal shown
        with lock:
            identity = newest()
            if identity.certificate_pem == shown.certificate_pem:
                return None
            shown = identity
            return configuration()

    # The stubs know nothing of None, which the library documents as "as before".
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], renewed)
    return grpc.dynamic_ssl_server_credentials(configuration(), fetcher, require_client_authentication=mutual)


@dataclass(frozen=True)
class Peer:
    """Who calls, as its certificate says: name, role, and its end in Unix seconds."""

    name: str
    role: str
    expires_at: float
    serial: str = ""
    """Of the certificate, in hex."""
    key_sha256: str = ""
    """Of the certificate's public key (its SubjectPublicKeyInfo in DER), in hex."""


def peer_identity(context: Context) -> Peer:
    """The caller's identity.

    Raises:
        IdentityError: There is no client certificate, or it does not name one identity.
    """
    pem = list(context.auth_context().get("x509_pem_cert") or ())
    if not pem:
        raise IdentityError("no client certificate")
    return certified_peer(bytes(pem[0]))


@functools.lru_cache(maxsize=1024)
def certified_peer(shown: bytes) -> Peer:
    """Who a certificate (PEM or DER) names, once the handshake has checked who issued it.

    Raises:
        IdentityError: It does not name one identity and a role of Covey's.
    """
    load = x509.load_pem_x509_certificate if shown.startswith(b"-----") else x509.load_der_x509_certificate
    try:
        certificate = load(shown)
    except ValueError as error:
        raise IdentityError("the client certificate cannot be read") from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    roles = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    if len(names) != 1 or len(roles) != 1:
        raise IdentityError("the client certificate does not name one identity and role")
    # An organisation's own authority may have certified other things than Covey's.
    name, role = check_name(str(names[0].value)), str(roles[0].value)
    if role not in ROLES:
        raise IdentityError(f"the client certificate gives no role of Covey's: {role[:80]!r}")
    expires_at, serial = certificate.not_valid_after_utc.timestamp(), f"{certificate.serial_number:x}"
    return Peer(name, role, expires_at, serial, key_sha256(certificate.public_key()))


def key_sha256(key: CertificatePublicKeyTypes) -> str:
    """The hash by which a public key is told from others: of its SubjectPublicKeyInfo in DER, in hex."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()
