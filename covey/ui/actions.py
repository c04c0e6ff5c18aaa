"""What the page may be told to do: start a run, go on with one, stop one, evict a node. The guard has seen who asks."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from covey.client.connection import Connection
from covey.client.models.continuing import continuation
from covey.errors import SpecError
from covey.ui.shapes import plain, run_json
from covey.ui.source import Source

MAX_BODY_BYTES = 1 << 20


class Actions:
    """The addresses that change something; each is a POST.

    Args:
        source: The federation.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/submit", self.submit, methods=["POST"]),
            Route("/api/runs/{run}/stop", self.stop, methods=["POST"]),
            Route("/api/runs/{run}/continue", self.go_on, methods=["POST"]),
            Route("/api/evict", self.evict, methods=["POST"]),
        ]

    async def submit(self, request: Request) -> Response:
        """Queue the run of a specification: TOML text as the body."""
        text = (await _body(request)).decode("utf-8", "replace")
        require_toml(text)
        submitted = await self._ask(lambda c: c.submit(text))
        return JSONResponse(run_json(submitted))

    async def stop(self, request: Request) -> Response:
        """Stop a run."""
        run = request.path_params["run"]
        return JSONResponse(run_json(await self._ask(lambda c: c.stop(run))))

    async def go_on(self, request: Request) -> Response:
        """Queue a new run that begins with the newest model of a run: of so many rounds as the body says."""
        run, rounds = request.path_params["run"], (await _body(request)).decode("utf-8", "replace")
        if not (rounds.isascii() and rounds.isdecimal() and 0 < len(rounds) < 10 and int(rounds)):
            raise SpecError("say how many rounds more, as a whole number from 1")
        submitted = await self._ask(lambda c: c.submit(continuation(c.run(run), int(rounds))))
        return JSONResponse(run_json(submitted))

    async def evict(self, request: Request) -> Response:
        """Shut out the node whose name is the body, for good."""
        name = (await _body(request)).decode("utf-8", "replace")
        return JSONResponse(plain(await self._ask(lambda c: c.evict(name))))

    async def _ask(self, question: Callable[[Connection], Any]) -> Any:
        return await run_in_threadpool(self._source.aside, question)


def require_toml(text: str) -> None:
    """Make sure that a text is a specification itself: the client would take one without a `=` for a file's name.

    Raises:
        SpecError: It is none.
    """
    try:
        known = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"this is no TOML: {error}") from error
    if not known or "=" not in text:
        what = "no key has a value in the specification" if known else "the specification is empty"
        raise SpecError(f'{what}; it begins with: name = "..."')


async def _body(request: Request) -> bytes:
    """The whole body. Raises `HTTPException`: it is larger than a specification may be."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"more than {MAX_BODY_BYTES} bytes")
    return body
