"""The process of the page: listens on loopback, says where, and ends with Ctrl-C."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from typing import Any

import uvicorn

from covey.client.target import Target
from covey.errors import CoveyError
from covey.ui.app import make_app
from covey.ui.guard import Secrets
from covey.ui.source import Source

HOST = "127.0.0.1"
STOP_S = 3
"""How long requests may go on after the end was asked for."""


SETTINGS: dict[str, Any] = {
    "http": "h11",
    "ws": "none",
    "lifespan": "off",
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "timeout_graceful_shutdown": STOP_S,
}


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
    try:
        bound = listener.getsockname()[1]
        tell(address := f"http://{HOST}:{bound}/?token={known.token}")
        if opens and has_screen():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        uvicorn.Server(uvicorn.Config(make_app(source, bound, known), **SETTINGS)).run(sockets=[listener])
    finally:
        source.close()
        listener.close()


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
