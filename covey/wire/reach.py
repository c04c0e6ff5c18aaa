"""Why a coordinator cannot be reached, in words: gRPC says the same of a port that is closed and of a wrong clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from covey.wire.addresses import host_and_port
from covey.wire.identities.authority import COORDINATOR_NAME, OWN_NAME
from covey.wire.proxies import Proxy, ask_for_tunnel, proxy_of, unused_proxy

T = TypeVar("T")
PROBE_S = 3.0
NOT_SERVED = grpc.StatusCode.UNIMPLEMENTED
WRONG_PORT = (
    "is a coordinator's enrolment port (--enrol-listen, 7401 by default), which takes join tokens only; "
    "nodes and admins connect to its main port (--listen, 7400 by default)"
)
CLOSED = (
    "what listens there closes connections without an answer: the coordinator is stopping or away, and a relay or load "
    "balancer stands before it, or it is another program"
)


async def why_unreachable(address: str, authority_pem: bytes = b"") -> str:
    """Why a coordinator cannot be reached, found out beside the event loop."""
    return await asyncio.to_thread(why, address, authority_pem)


def why(address: str, authority_pem: bytes = b"", *, enrolling: bool = False) -> str:
    """Why gRPC could not connect to a coordinator: what a plain connection finds. Blocking, for a few seconds.

    Args:
        address: `HOST:PORT`.
        authority_pem: Of the federation that is expected there; empty: any.
        enrolling: Whether it is the enrolment port that is wanted there.

    Returns:
        A clause with what to do.
    """
    proxy = proxy_of(address)
    place = (proxy.host, proxy.port) if proxy else host_and_port(address)
    try:
        with socket.create_connection(place, PROBE_S) as connection:
            if proxy is None or not (reason := ask_for_tunnel(connection, proxy, address)):
                reason = _look_at(connection, authority_pem, enrolling)
                reason = f"connections go through the proxy {proxy}: {reason}" if proxy else reason
    except OSError as error:
        reason = _no_proxy(error, proxy, address) if proxy else _no_connection(error, place[0])
    unused = unused_proxy(address)
    return f"{reason} ({unused})" if unused else reason


def _no_proxy(error: OSError, proxy: Proxy, address: str) -> str:
    why_not = f"no answer within {PROBE_S:g} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return (
        f"the proxy {proxy} does not answer: {why_not}; is it running, and is this its address? "
        f"To go without it, add {host_and_port(address)[0]} to no_proxy"
    )


def _no_connection(error: OSError, host: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {host!r} is not known on this machine; look for a typing error, or ask DNS"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is the coordinator running, and is this its port?"
    if isinstance(error, TimeoutError):
        return f"no answer within {PROBE_S:g} s; is a firewall in the way, or is it another machine's address?"
    if isinstance(error, ConnectionResetError):
        return CLOSED
    return error.strerror or str(error)


class _Secured:
    """TLS over a connection that stays its owner's: `wrap_socket` loses one that is reset while it is wrapped."""

    def __init__(self, connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self._connection, self._came, self._goes = connection, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._came, self._goes, server_hostname=COORDINATOR_NAME)

    def do(self, step: Callable[[], T]) -> T:
        """Handshake or read, with what that takes of the connection."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._connection.sendall(self._goes.read())
                if data := self._connection.recv(1 << 16):
                    self._came.write(data)
                else:
                    self._came.write_eof()
            else:
                self._connection.sendall(self._goes.read())
                return result


def _look_at(connection: socket.socket, authority_pem: bytes, enrolling: bool) -> str:
    secured = _Secured(connection)
    try:
        secured.do(secured.tls.do_handshake)
        shown = secured.tls.getpeercert(binary_form=True)
        problem = _certificate(x509.load_der_x509_certificate(shown), authority_pem) if shown else ""
        if problem:
            return problem
        connection.settimeout(0.5)
        return _admission(secured, enrolling)
    except TimeoutError:
        return f"something listens there, but does not shake hands within {PROBE_S:g} s; the coordinator may be busy"
    except (ssl.SSLEOFError, ConnectionError):
        return CLOSED
    except (ssl.SSLError, OSError, ValueError):
        return "what listens there does not speak TLS: it is another program, or the port of another service"


def _certificate(shown: x509.Certificate, authority_pem: bytes) -> str:
    now = dt.datetime.now(dt.UTC)
    begins, ends = shown.not_valid_before_utc, shown.not_valid_after_utc
    if COORDINATOR_NAME not in _names(shown):
        return (
            "what answers is not a coordinator of Covey: its certificate is for "
            f"{', '.join(_names(shown)) or 'nobody'}, {_intercepted(shown)}"
        )
    if begins > now or ends <= now:
        return (
            f"its certificate is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC, and this machine's "
            f"clock says {now:%Y-%m-%d %H:%M} UTC; set the clock that is wrong"
        )
    if not authority_pem:
        return ""
    try:
        shown.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem))
    except (ValueError, TypeError, InvalidSignature):
        if shown.issuer == OWN_NAME:
            return (
                "the coordinator there belongs to another federation; look at the address, or join it with a new token"
            )
        return (
            f"the certificate that comes is not of this federation, it is {_intercepted(shown)}. If it is another "
            "federation's, look at the address, or join it with a new token"
        )
    return ""


def _intercepted(shown: x509.Certificate) -> str:
    """Who issued a certificate; and what it means if that is a firewall's or proxy's authority."""
    issuer = "".join(c for c in shown.issuer.rfc4514_string() if c.isprintable())[:120]
    return (
        f"issued by {issuer!r}; if that is a firewall's or a proxy's own authority, TLS is intercepted on the way, "
        "which a federation refuses: ask those who run it to except this destination from inspection (to pass its "
        "TLS through unopened), whoever's authority this machine trusts"
    )


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names: Any = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        return [str(name) for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        return []


def _admission(secured: _Secured, enrolling: bool) -> str:
    """What comes after the handshake: the main port ends a connection without a certificate."""
    try:
        wants_certificate = not secured.do(lambda: secured.tls.read(1))
    except TimeoutError:
        wants_certificate = False
    except (ssl.SSLError, OSError):
        wants_certificate = True
    if enrolling and wants_certificate:
        return (
            "this is a coordinator's main port, and enrolling goes to its enrolment port (--enrol-listen, 7401 by "
            "default); its operator starts it with --advertise-enrol, and makes a new token"
        )
    if not enrolling and not wants_certificate:
        return f"this {WRONG_PORT}"
    return "it is there and shakes hands, but gave no answer in time; it may be busy, or it is just stopping"
