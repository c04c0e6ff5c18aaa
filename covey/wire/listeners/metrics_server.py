"""Serves a daemon's metrics to Prometheus: plain HTTP on loopback, mutual TLS on every other address.

The event loop of the daemon has no part in it: threads of its own answer (`covey.wire.listeners.bounded_server`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from wsgiref.types import WSGIApplication

import structlog
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from covey.errors import CoveyError
from covey.wire.listeners.bounded_server import BoundedServer, tls_context
from covey.wire.listeners.metrics_app import PATH, Admit, admit_all, metrics_app

log = structlog.get_logger(room="metrics")
DEADLINE_S = 10.0
"""A connection lives no longer, from accept to answer."""
POLL_S = 0.2


class MetricsServer:
    """Listens from the moment it is made until `close`.

    Args:
        registry: What is shown.
        address: `HOST:PORT`. The host is an address of this machine, or a name that resolves to one; port 0 takes
            any free one.
        identity: Folder with the daemon's `tls.key`, `tls.crt` and `authority.crt`, read for each connection: a
            renewed certificate counts at once. Only for addresses that are not loopback.
        admit: Raises `IdentityError` for who may not see them, whatever the role.
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
        admit: Admit = admit_all,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        # Else each counter has a second series, which says nothing that its resets do not.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._server = _listen(metrics_app(registry, admit), address, identity, deadline_s)
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
    registry: CollectorRegistry, address: str | None, identity: Path, *, admit: Admit = admit_all
) -> AsyncIterator[str]:
    """Serve a daemon's metrics inside the context; as `MetricsServer`, with what every process can say of itself.

    Args:
        registry: What is shown beside that.
        address: As for `MetricsServer`; None: the operator does not want any.
        identity: As for `MetricsServer`.
        admit: As for `MetricsServer`.

    Yields:
        Where they can be scraped; empty: nowhere.
    """
    if address is None:
        yield ""
        return
    _add_process_metrics(registry)
    server = await asyncio.to_thread(MetricsServer, registry, address, identity, admit=admit)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.close)


def _add_process_metrics(registry: CollectorRegistry) -> None:
    """Memory, CPU, files, garbage collection."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def _listen(app: WSGIApplication, address: str, identity: Path, deadline_s: float) -> BoundedServer:
    """A server on the first address of a name that can be bound."""
    host, _, port = address.rpartition(":")
    problem = "it has no address"
    try:
        places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, _, _, _, place in places:
            secure = not ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback
            if secure:
                tls_context(identity)  # better said now than at the first scrape
            try:
                return BoundedServer(family, place, app, identity if secure else None, deadline_s)
            except OSError as error:
                problem = error.strerror or str(error)
    except (OSError, OverflowError) as error:
        problem = str(error)
    raise CoveyError(
        f"metrics cannot be served on {address}: {problem}; give --metrics an address of this machine and a free "
        "port (port 0 takes any)"
    )
