"""Serves a daemon's metrics to Prometheus: plain HTTP on loopback, mutual TLS on every other address.

One request a connection, in a thread of its own; the event loop of the daemon has no part in it. What a client can
make this process hold is bounded: so many connections at once, in all and from one address, each for so long, whatever
it sends or does not send.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import AsyncIterator, Container
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from covey.errors import CoveyError, IdentityError
from covey.wire.channels import certified_peer

log = structlog.get_logger(room="metrics")
PATH = "/metrics"
ROLES = ("admin", "auditor")
"""Who may scrape over the network."""
MAX_CONNECTIONS = 8
MAX_OF_ADDRESS = 2
MAX_OF_LOOPBACK = 4
DEADLINE_S = 10.0
"""A connection lives no longer, from accept to answer."""
HANDSHAKE_S = 2.0
"""So long may a stranger hold a connection."""
SAY_EVERY_S = 60.0
"""Failed handshakes are put into the log this often at most."""
POLL_S = 0.2


class MetricsServer:
    """Listens from the moment it is made until `close`.

    Args:
        registry: What is shown.
        address: `HOST:PORT`. The host is an address of this machine, or a name that resolves to one; port 0 takes
            any free one.
        identity: Folder with the daemon's `tls.key`, `tls.crt` and `authority.crt`, read for each connection: a
            renewed certificate counts at once. Only for addresses that are not loopback.
        shut_out: Names whose certificates are not accepted any more.
        deadline_s: How long one connection may take.

    Raises:
        CoveyError: It cannot listen there.
        IdentityError: The identity is not usable.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: str,
        identity: Path,
        *,
        shut_out: Container[str] = (),
        deadline_s: float = DEADLINE_S,
    ) -> None:
        # Else each counter has a second series, which says nothing that its resets do not.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._server = _listen(registry, address, identity, shut_out, deadline_s)
        host, port = self._server.socket.getsockname()[:2]
        scheme = "https" if self._server.secure else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
        """Where it answers."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics", url=self.url)

    def close(self) -> None:
        """Stop listening, and end every connection. Blocking, for a moment."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.end_older_than(0.0)


@contextlib.asynccontextmanager
async def scrapable(
    registry: CollectorRegistry, address: str | None, identity: Path, *, shut_out: Container[str] = ()
) -> AsyncIterator[str]:
    """Serve a daemon's metrics inside the context; as `MetricsServer`, with what every process can say of itself.

    Args:
        registry: What is shown beside that.
        address: As for `MetricsServer`; None: the operator does not want any.
        identity: As for `MetricsServer`.
        shut_out: As for `MetricsServer`.

    Yields:
        Where they can be scraped; empty: nowhere.
    """
    if address is None:
        yield ""
        return
    _add_process_metrics(registry)
    server = await asyncio.to_thread(MetricsServer, registry, address, identity, shut_out=shut_out)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.close)


def _add_process_metrics(registry: CollectorRegistry) -> None:
    """Memory, CPU, files, garbage collection."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def _listen(
    registry: CollectorRegistry, address: str, identity: Path, shut_out: Container[str], deadline_s: float
) -> _Server:
    """A server on the first address of a name that can be bound."""
    host, _, port = address.rpartition(":")
    problem = "it has no address"
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, _, _, _, place in found:
            secure = not ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback
            if secure:
                _tls_context(identity)  # better said now than at the first scrape
            try:
                return _Server(family, place, registry, identity if secure else None, shut_out, deadline_s)
            except OSError as error:
                problem = error.strerror or str(error)
    except (OSError, OverflowError) as error:
        problem = str(error)
    raise CoveyError(
        f"metrics cannot be served on {address}: {problem}; give --metrics an address of this machine and a free "
        "port (port 0 takes any)"
    )


def _tls_context(identity: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # who comes again shows its certificate again
    # An organisation's own authority may be an intermediate one; gRPC trusts it as it is, too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_cert_chain(identity / "tls.crt", identity / "tls.key")
        context.load_verify_locations(identity / "authority.crt")
    except OSError as error:
        raise IdentityError(f"the identity in {identity} cannot be used to serve metrics: {error}") from error
    return context


@dataclass
class _Connection:
    socket: socket.socket
    host: str
    since: float
    """When it was accepted (monotonic seconds)."""


class _Server(socketserver.TCPServer):
    """Accepts in one thread, and answers each connection in another; `identity` is None for plain HTTP."""

    allow_reuse_address = True
    request_queue_size = 16

    def __init__(
        self,
        family: int,
        place: Any,
        registry: CollectorRegistry,
        identity: Path | None,
        shut_out: Container[str],
        deadline_s: float,
    ) -> None:
        self.address_family = family
        self.registry, self.shut_out = registry, shut_out
        self._identity, self._deadline_s = identity, deadline_s
        self._open: dict[threading.Thread, _Connection] = {}
        self._strangers, self._said_at = 0, -math.inf
        self._rendering = threading.Lock()
        super().__init__(place, _Handler)

    @property
    def secure(self) -> bool:
        """Whether clients must show a certificate."""
        return self._identity is not None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread; one connection too many is closed at once."""
        host = str(client_address[0])
        if not self._has_room(host):
            self.shutdown_request(request)
            return
        request.settimeout(self._deadline_s)
        thread = threading.Thread(target=self._answer, args=(request, client_address), name="scrape", daemon=True)
        self._open[thread] = _Connection(request, host, time.monotonic())
        try:
            thread.start()
        except RuntimeError:  # the machine allows no more threads
            del self._open[thread]
            raise

    def _has_room(self, host: str) -> bool:
        of_host = sum(one.host == host for one in list(self._open.values()))
        most = MAX_OF_LOOPBACK if ipaddress.ip_address(host.partition("%")[0]).is_loopback else MAX_OF_ADDRESS
        return len(self._open) < MAX_CONNECTIONS and of_host < most

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection could not be taken."""
        log.warning("metrics could not be shown", client=client_address[0], exc_info=True)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        thread = threading.current_thread()
        try:
            if self._identity is not None:
                context = _tls_context(self._identity)
                request = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self._open[thread].socket = request
                if not self._shaken(request, client_address[0]):
                    return
            self.finish_request(request, client_address)
        except (OSError, ValueError) as error:
            log.debug("no metrics for this client", client=client_address[0], error=str(error))
        except Exception as error:
            log.warning("metrics could not be shown", client=client_address[0], error=repr(error))
        finally:
            self._open.pop(thread, None)
            self.shutdown_request(request)

    def _shaken(self, connection: ssl.SSLSocket, host: str) -> bool:
        """Shake hands; False: there is nobody there with a certificate that counts."""
        connection.settimeout(min(HANDSHAKE_S, self._deadline_s))  # of the handshake as a whole
        try:
            connection.do_handshake()
        except OSError as error:
            self._strangers += 1
            if time.monotonic() - self._said_at >= SAY_EVERY_S:
                self._said_at = time.monotonic()
                log.warning("TLS handshakes failed", failures=self._strangers, client=host, error=str(error))
                self._strangers = 0
            return False
        connection.settimeout(self._deadline_s)
        return True

    def service_actions(self) -> None:
        """End what is overdue: a client may send one byte a second."""
        self.end_older_than(self._deadline_s)

    def end_older_than(self, seconds: float) -> None:
        """End the connections that are this old; their threads end by it."""
        for one in list(self._open.values()):
            if time.monotonic() - one.since >= seconds:
                try:
                    # Not the method of `SSLSocket`: it would take the TLS state from under the thread that reads.
                    socket.socket.shutdown(one.socket, socket.SHUT_RDWR)
                except OSError:
                    continue

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that a client prefers, and its content type; for one client at a time."""
        encode, content_type = choose_encoder(accept)
        with self._rendering:
            return encode(self.registry), content_type


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "covey", ""

    def do_GET(self) -> None:
        """`/metrics` for those who may see it."""
        if not self._admitted():
            self.send_error(HTTPStatus.FORBIDDEN, "a certificate with role admin or auditor is needed")
        elif urlsplit(self.path).path != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, f"only {PATH} is served")
        else:
            self._show()

    def _show(self) -> None:
        try:
            text, content_type = self.server.render(self.headers.get("Accept", ""))
        except Exception as error:
            log.warning("metrics could not be rendered", error=repr(error))
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "see the daemon's log")
        else:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.NOT_FOUND if self._admitted() else HTTPStatus.FORBIDDEN)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _refuse

    def _admitted(self) -> bool:
        if not isinstance(self.connection, ssl.SSLSocket):
            return True
        shown = self.connection.getpeercert(binary_form=True)
        if not shown:
            return False
        try:
            peer = certified_peer(shown)
        except IdentityError:
            return False
        return peer.role in ROLES and peer.name not in self.server.shut_out

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the log: a scrape every few seconds is no news."""
