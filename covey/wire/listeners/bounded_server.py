"""A WSGI server for a few clients that bear us ill: the standard library's, with bounds and mutual TLS.

One request a connection, in a thread of its own. What a client can make this process hold is bounded: so many
connections at once, in all and from one address, each for so long, whatever it sends or does not send.

`prometheus_client.start_http_server` is not used, because it wraps its listening socket: each handshake is then made by
the thread that accepts, where one silent client keeps everybody else waiting; it knows one certificate for as long as
it listens; and it bounds neither the connections nor how long one takes.
"""

from __future__ import annotations

import io
import ipaddress
import math
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

import structlog
from typing_extensions import override

from covey.errors import IdentityError

log = structlog.get_logger(room="metrics")
CERTIFICATE = "covey.certificate"
"""Of a request's environment: the client's certificate (DER), or None over plain HTTP."""
MAX_CONNECTIONS = 8
MAX_OF_ADDRESS = 2
MAX_OF_LOOPBACK = 4
HANDSHAKE_S = 2.0
"""So long may a stranger hold a connection."""
SAY_EVERY_S = 60.0
"""Failed handshakes are put into the log this often at most."""
THREAD = "scrape"


@dataclass
class _Connection:
    socket: socket.socket
    host: str
    since_s: float
    """When it was accepted (monotonic)."""


class BoundedServer(ThreadingMixIn, WSGIServer):
    """Accepts in one thread, and answers each connection in another.

    Args:
        family: Of the address.
        place: The address, as the family has it.
        app: What answers; it finds the client's certificate under `CERTIFICATE`.
        identity: Folder with `tls.key`, `tls.crt` and `authority.crt`, read for each connection: a renewed
            certificate counts at once. None: plain HTTP.
        deadline_s: A connection lives no longer, from accept to answer.

    Raises:
        OSError: It cannot listen there.
    """

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, family: int, place: Any, app: WSGIApplication, identity: Path | None, deadline_s: float) -> None:
        self.address_family = family
        self._identity, self._deadline_s = identity, deadline_s
        self._open: dict[socket.socket, _Connection] = {}
        self._strangers, self._said_at_s = 0, -math.inf
        super().__init__(place, _Handler)
        self.set_app(app)

    @property
    def secure(self) -> bool:
        """Whether clients must show a certificate."""
        return self._identity is not None

    @override
    def server_bind(self) -> None:
        """Bind without asking the name service for the name of this address, which may take long."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    @override
    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more of this address; if not, the connection is closed at once."""
        host = str(client_address[0])
        of_host = sum(connection.host == host for connection in list(self._open.values()))
        most = MAX_OF_LOOPBACK if ipaddress.ip_address(host.partition("%")[0]).is_loopback else MAX_OF_ADDRESS
        return len(self._open) < MAX_CONNECTIONS and of_host < most

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread; the connection counts from now on."""
        request.settimeout(self._deadline_s)
        self._open[request] = _Connection(request, str(client_address[0]), time.monotonic())
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the machine allows no more threads
            del self._open[request]
            raise

    @override
    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        threading.current_thread().name = THREAD
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._open[request]

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer one request, after the handshake where there is TLS."""
        if self._identity is None:
            super().finish_request(request, client_address)
            return
        context = tls_context(self._identity)
        secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            self._open[request].socket = secured
            if self._shaken(secured, client_address[0]):
                super().finish_request(secured, client_address)
        finally:
            self.shutdown_request(secured)  # `request` is empty since it was wrapped

    def _shaken(self, connection: ssl.SSLSocket, host: str) -> bool:
        """Shake hands; False: there is nobody there with a certificate that counts."""
        connection.settimeout(min(HANDSHAKE_S, self._deadline_s))  # of the handshake as a whole
        try:
            connection.do_handshake()
        except OSError as error:
            self._strangers += 1
            if time.monotonic() - self._said_at_s >= SAY_EVERY_S:
                self._said_at_s = time.monotonic()
                log.warning("TLS handshakes failed", failures=self._strangers, client=host, error=str(error))
                self._strangers = 0
            return False
        connection.settimeout(self._deadline_s)
        return True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection was not answered: because of the client, which is no news, or because of us."""
        error = sys.exception()
        if isinstance(error, OSError | ValueError):
            log.debug("no metrics for this client", client=client_address[0], error=str(error))
        else:
            log.warning("metrics could not be shown", client=client_address[0], error=repr(error))

    @override
    def service_actions(self) -> None:
        """End what is overdue: a client may send one byte a second."""
        self.end_older_than(self._deadline_s)

    def end_older_than(self, seconds: float) -> None:
        """End the connections that are this old; their threads end by it."""
        for connection in list(self._open.values()):
            if time.monotonic() - connection.since_s >= seconds:
                try:
                    # Not the method of `SSLSocket`: it would take the TLS state from under the thread that reads.
                    socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
                except OSError:
                    continue


class _Handler(WSGIRequestHandler):
    server_version, sys_version = "covey", ""

    @override
    def get_environ(self) -> dict[str, Any]:
        """As the application gets it: with the client's certificate."""
        secured = self.connection if isinstance(self.connection, ssl.SSLSocket) else None
        return {**super().get_environ(), CERTIFICATE: secured and secured.getpeercert(binary_form=True)}

    @override
    def get_stderr(self) -> io.StringIO:
        """Nowhere: a client that goes away while it is answered is no news. The application has a log of its own."""
        return io.StringIO()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Not into the log: a request every few seconds is no news."""


def tls_context(identity: Path) -> ssl.SSLContext:
    """Mutual TLS with an identity's files as they are now.

    Raises:
        IdentityError: They are not usable.
    """
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
