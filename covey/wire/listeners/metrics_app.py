"""Who may see a daemon's metrics: the application of `prometheus_client`, behind a look at path and certificate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from covey.errors import IdentityError
from covey.wire.channels import Peer, certified_peer
from covey.wire.listeners.bounded_server import CERTIFICATE

log = structlog.get_logger(room="metrics")
PATH = "/metrics"
ROLES = ("admin", "auditor")
"""Who may scrape over the network."""
Admit = Callable[[Peer], None]


def admit_all(peer: Peer) -> None:
    """Whoever the federation's authority certified in one of these roles: a node knows no more of others."""


def metrics_app(registry: CollectorRegistry, admit: Admit) -> WSGIApplication:
    """Answers `GET /metrics`, for one client at a time, and nothing else.

    Args:
        registry: What is shown, in the format that the client prefers.
        admit: Raises `IdentityError` for who may not see them, whatever the role.
    """
    show: WSGIApplication = make_wsgi_app(registry, disable_compression=True)
    rendering = threading.Lock()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response = _unversioned(start_response)
        if not _admitted(environ[CERTIFICATE], admit):
            return _refuse(start_response, HTTPStatus.FORBIDDEN, "a certificate with role admin or auditor is needed")
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("GET", PATH):
            return _refuse(start_response, HTTPStatus.NOT_FOUND, f"only GET {PATH} is served")
        try:
            with rendering:
                return show({**environ, "QUERY_STRING": ""}, start_response)
        except Exception as error:
            log.warning("metrics could not be rendered", error=repr(error))
            return _refuse(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, "see the daemon's log")

    return app


def _unversioned(start_response: StartResponse) -> StartResponse:
    """Else an answer names Python's version."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        return start_response(status, [*headers, ("Server", "covey")], *exc_info)

    return start


def _admitted(certificate: bytes | None, admit: Admit) -> bool:
    if certificate is None:  # plain HTTP, on loopback only
        return True
    try:
        peer = certified_peer(certificate)
        admit(peer)
    except IdentityError:
        return False
    return peer.role in ROLES


def _refuse(start_response: StartResponse, status: HTTPStatus, text: str) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
