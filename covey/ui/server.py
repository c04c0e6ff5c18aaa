"""The process of the page: listens on loopback, says where, and ends with Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from covey.client.target import Target
from covey.errors import CoveyError
from covey.ui.app import make_app
from covey.ui.guard import Secrets
from covey.ui.source import Source

HOST = "127.0.0.1"
STOP_S = 3
"""How long questions may go on after the end was asked for: then what they wait for is cut off."""
ANSWER_S = 2
"""How long requests may go on after that."""
SETTINGS: dict[str, Any] = {
    "http": "h11",
    "ws": "none",
    "lifespan": "off",
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "timeout_graceful_shutdown": STOP_S + ANSWER_S,
}
REDIRECT = """<!doctype html>
<meta charset="utf-8">
<title>Covey</title>
<meta http-equiv="refresh" content="0; url={address}">
<p><a href="{address}">The page of covey ui</a></p>
"""


def serve(target: Target, port: int, tell: Callable[[str], None], *, opens: bool) -> None:
    """Serve the page until SIGTERM or SIGINT, which has its usual effect then.

    Args:
        target: Which coordinator.
        port: Of 127.0.0.1; 0: any free one.
        tell: Is told the address, with its token, once the server listens.
        opens: Whether to open it in the browser, where this machine has a screen.

    Raises:
        CoveyError: It cannot listen there.
    """
    listener = listen(port)
    source, known = Source(target), Secrets()
    with contextlib.ExitStack() as at_end:
        at_end.callback(listener.close)
        at_end.callback(source.close)
        bound = listener.getsockname()[1]
        tell(address := f"http://{HOST}:{bound}/?token={known.token}")
        if opens and has_screen():
            file = at_end.enter_context(redirect(address))
            threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
        PageServer(source, bound, known).run(sockets=[listener])


class PageServer(uvicorn.Server):
    """The server on a socket; at its end it waits `STOP_S` for questions that are open, and then cuts them off.

    Args:
        source: The federation; it is closed at the end.
        port: Where it will listen.
        known: Who is let in.
    """

    def __init__(self, source: Source, port: int, known: Secrets) -> None:
        super().__init__(uvicorn.Config(make_app(source, port, known), **SETTINGS))
        self._source = source

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; requests are threads that wait, which nothing but the end of what they wait for ends."""
        loop = asyncio.get_running_loop()
        cut_off = loop.call_later(STOP_S, loop.run_in_executor, None, self._source.close)
        try:
            await super().shutdown(sockets)
        finally:
            cut_off.cancel()
            await loop.run_in_executor(None, self._source.close)


@contextlib.contextmanager
def redirect(address: str) -> Iterator[Path]:
    """A file that leads a browser to an address with a token, for this user alone; it is deleted at the end.

    The browser is told the file: everybody on the machine can read the command line of its process.
    """
    with tempfile.TemporaryDirectory(prefix="covey-ui-") as folder:
        file = Path(folder) / "open.html"
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
            written.write(REDIRECT.format(address=address))
        yield file


def listen(port: int) -> socket.socket:
    """A listening socket on loopback.

    Raises:
        CoveyError: The port is taken, or may not be used; the message says what to do.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise CoveyError(f"cannot listen on {HOST}:{port}: {error.strerror}; --port 0 takes any free port") from error
    return listener


def has_screen() -> bool:
    """Whether a browser with windows can be opened here: one in the terminal would take it away."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
