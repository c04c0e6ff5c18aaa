"""Who may talk to the page's server: whoever has the token, from the page itself, under the server's own name."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACTION = "x-covey-action"
"""The header with which the page says that a person asked for a change."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


ONWARD = '<!doctype html><meta charset="utf-8"><title>Covey</title><meta http-equiv="refresh" content="0; url=/">'
"""The answer to the token: the page goes on by itself. A redirect would not do: a browser that comes here from a file,
or from a terminal that is itself a page, would not send the cookie along, for the whole way is another site's."""


def secret() -> str:
    """256 random bits as text for an address."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Secrets:
    """What lets somebody in, made anew at each start."""

    token: str = field(default_factory=secret, repr=False)
    """In the address that is opened first."""
    session: str = field(default_factory=secret, repr=False)
    """In the cookie that the token is exchanged for: the address is in histories, and this is not."""
    action: str = field(default_factory=secret, repr=False)
    """With every request that changes something; only the page can read it."""


class Guard:
    """Lets through what comes from the page, and refuses the rest in words.

    - The Host header is one of the server's own names: a name of somebody else's that leads to 127.0.0.1 (DNS
      rebinding) is none.
    - The first visit has the token in the address, and gets a cookie for it; all others have the cookie.
    - What changes something is a POST from the page's own origin with the action's secret.

    Args:
        app: What is guarded.
        port: Where the server listens.
        known: The secrets.
    """

    def __init__(self, app: ASGIApp, port: int, known: Secrets) -> None:
        self._app, self._known = app, known
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._cookie = f"covey-ui-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            raise RuntimeError(f"the page has no {scope['type']}")
        request = Request(scope)
        answer = self._refused(request) or self._admitted(request)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refused(self, request: Request) -> Response | None:
        """Why it does not come from the page's own address; None: it may."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return _no(HTTPStatus.MISDIRECTED_REQUEST, f"this server is called {' or '.join(self._hosts)}")
        if request.method in ("GET", "HEAD"):
            return None
        if request.method != "POST":
            return _no(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or POST")
        is_own = request.headers.getlist("origin") == [f"http://{hosts[0]}"]
        if not is_own or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _no(HTTPStatus.FORBIDDEN, "only the page itself may ask for this")
        return None

    def _admitted(self, request: Request) -> Response | None:
        """The answer to a first visit, or to somebody unknown; None: go on."""
        given = request.query_params.get("token")
        if request.method == "GET" and request.url.path == "/" and given is not None:
            if not _same(given, self._known.token):
                return _no(
                    HTTPStatus.FORBIDDEN, "this token is of another start of covey ui; open the address it printed last"
                )
            answer = HTMLResponse(ONWARD)
            answer.set_cookie(self._cookie, self._known.session, path="/", httponly=True, samesite="strict")
            return answer
        if not _same(request.cookies.get(self._cookie, ""), self._known.session):
            return _no(HTTPStatus.UNAUTHORIZED, "open the address that covey ui printed: it has the token")
        if request.method == "POST" and not _same(request.headers.get(ACTION, ""), self._known.action):
            return _no(HTTPStatus.FORBIDDEN, "this page is of another start of covey ui; load it again")
        return None


def _same(given: str, known: str) -> bool:
    """Whether two secrets are the same, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), known.encode())


def _no(status: HTTPStatus, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
