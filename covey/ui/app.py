"""The server of the page: its files, what it reads, and what it may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from covey.client.errors import Unreachable
from covey.errors import Conflict, CoveyError, IdentityError, NotFound, SpecError
from covey.ui.actions import Actions
from covey.ui.gossip import GossipReadings
from covey.ui.guard import Guard, Secrets
from covey.ui.readings import Readings
from covey.ui.source import Source

STATIC = Path(__file__).parent / "static"
STATUS: dict[type[CoveyError], int] = {
    Unreachable: 503,
    NotFound: 404,
    Conflict: 409,
    IdentityError: 403,
    SpecError: 422,
}
INTERNAL = 500


def make_app(source: Source, port: int, known: Secrets) -> Guard:
    """The whole server as an ASGI application.

    Args:
        source: The federation.
        port: Where it will listen: the only port under which it answers.
        known: Who is let in.
    """
    routes = [
        Route("/", _index),
        *Readings(source, known.action).routes(),
        *GossipReadings(source).routes(),
        *Actions(source).routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers: Any = {CoveyError: _covey_error, HTTPException: _http_error}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port, known)


def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


def _covey_error(request: Request, error: CoveyError) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), INTERNAL)
    body = {"error": str(error), "away": isinstance(error, Unreachable)}
    return JSONResponse(body, status)


def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail, "away": False}, error.status_code)
