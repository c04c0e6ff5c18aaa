"""Why a coordinator cannot be reached, in words: gRPC says the same of a port that is closed and of a wrong clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import socket
import ssl
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from covey.wire.identities.authority import COORDINATOR_NAME

T = TypeVar("T")
PROBE_S = 3.0
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC reads, the first one that is set counts."""
NOT_SERVED = grpc.StatusCode.UNIMPLEMENTED
WRONG_PORT = (
    "is a coordinator's enrolment port (--enrol-listen, 7401 by default), which takes join tokens only; "
    "nodes and admins connect to its main port (--listen, 7400 by default)"
)
CLOSED = (
    "what listens there closes connections without an answer: the coordinator is stopping or away, and a relay or load "
    "balancer stands before it, or it is another program"
)


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `HOST:PORT`, without the brackets of an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine only."""
    host, _ = host_and_port(address)
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")


def proxy_options(address: str) -> list[tuple[str, Any]]:
    """Options of a channel: a proxy of the environment is for other machines, never for this one's own loopback."""
    return [("grpc.enable_http_proxy", 0)] if is_loopback(address) else []


def proxy_of(address: str) -> str:
    """Through which proxy gRPC goes to an address, and which variable says so; empty: through none."""
    host, _ = host_and_port(address)
    variable = next((name for name in _PROXIES if os.environ.get(name)), "")
    exceptions = next(filter(None, map(os.environ.get, ("no_grpc_proxy", "no_proxy"))), "")
    excepted = urllib.request.proxy_bypass_environment(host, {"no": exceptions})  # type: ignore[attr-defined]
    if not variable or is_loopback(address) or excepted:
        return ""
    return f"{os.environ[variable]} ({variable})"


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
    if proxy:
        host, _ = host_and_port(address)
        return (
            f"connections go through the proxy {proxy}, which does not lead there; "
            f"to go without it, add {host} to no_proxy"
        )
    try:
        with socket.create_connection(host_and_port(address), PROBE_S) as connection:
            return _look_at(connection, authority_pem, enrolling)
    except socket.gaierror:
        return (
            f"the name {host_and_port(address)[0]!r} is not known on this machine; look for a typing error, or ask DNS"
        )
    except ConnectionRefusedError:
        return "nothing listens there; is the coordinator running, and is this its port?"
    except TimeoutError:
        return f"no answer within {PROBE_S:g} s; is a firewall in the way, or is it another machine's address?"
    except ConnectionResetError:
        return CLOSED
    except OSError as error:
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
        return "what listens there is not a coordinator of Covey (its certificate says otherwise)"
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
        return "the coordinator there belongs to another federation; look at the address, or join it with a new token"
    return ""


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
