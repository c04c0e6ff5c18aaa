"""The HTTP proxy of the environment as gRPC reads it, and how one asks it for a tunnel (CONNECT, RFC 9110 9.3.6).

gRPC goes through a proxy by itself. What is here says which one, and finds out what it answers, where gRPC only says
that there is no connection.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from covey.wire.addresses import host_and_port, is_loopback

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Those that gRPC reads: the first one that is set counts, also if it is empty (then: no proxy). No capitals."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
DEFAULT_PORT = 443
"""Where gRPC looks for a proxy that is named without a port."""
MAX_REPLY_BYTES = 1 << 14


def proxy_options(address: str) -> list[tuple[str, Any]]:
    """Options of a channel: a proxy of the environment is for other machines, never for this one's own loopback."""
    return [("grpc.enable_http_proxy", 0)] if is_loopback(address) else []


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy; as text without its password: `http://HOST:PORT (VARIABLE)`."""

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    """`NAME:PASSWORD`; None: it is not told who asks."""
    variable: str = ""

    def __str__(self) -> str:
        """How messages name it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port} ({self.variable})"

    def request(self, address: str) -> bytes:
        """What asks for a tunnel to an address."""
        who = base64.b64encode((self.user or "").encode()).decode()
        may = f"Proxy-Authorization: Basic {who}\r\n" if self.user is not None else ""
        return f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{may}\r\n".encode()


def proxy_of(address: str) -> Proxy | None:
    """Through which proxy gRPC goes to an address; None: through none."""
    name, value = _set(VARIABLES)
    if not value or is_loopback(address) or _is_excepted(address) or why_unused(value):
        return None
    parts = urlsplit(value)
    user = unquote(parts.netloc.rpartition("@")[0]) if "@" in parts.netloc else None
    return Proxy(parts.hostname or "", parts.port or DEFAULT_PORT, user, name)


def unused_proxy(address: str) -> str:
    """Which variable names a proxy that gRPC does not go through, and why; empty: none."""
    name, value = _set(VARIABLES)
    if is_loopback(address) or _is_excepted(address):
        return ""
    if value:
        reason = why_unused(value)
        return f"{name} names a proxy that is not used: {reason}" if reason else ""
    capitals = next((name.upper() for name in VARIABLES if os.environ.get(name.upper())), "")
    if not capitals or os.environ.get(capitals.lower()) is not None:
        return ""
    return f"{capitals} is not read: a proxy is named in small letters, {capitals.lower()}=http://HOST:PORT"


def why_unused(value: str) -> str:
    """Why gRPC passes over a proxy's address; empty: it does not."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    return "" if usable else "its address has to be http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT"


def refusal(status: bytes, proxy: Proxy, address: str) -> str:
    """What a proxy's first line says, with what to do; empty: the tunnel is there."""
    protocol, _, rest = status.decode("latin-1").partition(" ")
    code, answered = rest[:3], "".join(c if c.isprintable() else "?" for c in rest[:80])
    if not protocol.startswith("HTTP/"):
        return f"what listens at the proxy's address {proxy} is no HTTP proxy"
    if code.startswith("2"):
        return ""
    if code == "407":
        wants = "refuses this name and password" if proxy.user is not None else "wants a name and a password"
        return (
            f"the proxy {proxy} {wants} ({answered}); write them into {proxy.variable}: http://NAME:PASSWORD@HOST:PORT"
        )
    if code in ("403", "405"):
        return (
            f"the proxy {proxy} does not allow it ({answered}); have its operator allow CONNECT to {address}, or ask "
            "for a coordinator at port 443, which is often the only one allowed"
        )
    if code in ("502", "503", "504"):
        return f"the proxy {proxy} cannot reach {address} itself ({answered}); is the coordinator running there?"
    return f"the proxy {proxy} makes no tunnel to {address} ({answered})"


def ask_for_tunnel(connection: socket.socket, proxy: Proxy, address: str) -> str:
    """Have a connection to a proxy lead on to an address; why it does not, or empty. Blocking.

    Raises:
        OSError: The connection ends, or its time is over.
    """
    connection.sendall(proxy.request(address))
    reply = b""
    while not reply.endswith(b"\r\n\r\n") and len(reply) < MAX_REPLY_BYTES:
        piece = connection.recv(1)  # not a byte of what comes after it
        if not piece:
            break
        reply += piece
    if not reply:
        raise ConnectionResetError("it closes the connection without an answer")
    return refusal(reply.split(b"\r\n", 1)[0], proxy, address)


def _set(names: tuple[str, ...]) -> tuple[str, str]:
    name = next((name for name in names if name in os.environ), "")
    return name, os.environ.get(name, "")


def _is_excepted(address: str) -> bool:
    """Whether an exception is for it: the end of its name (not at a dot only), or a network that its address is in."""
    host, _ = host_and_port(address)
    entries = [entry.strip().lower() for entry in _set(EXCEPTIONS)[1].split(",")]
    return any(entry and (host.lower().endswith(entry) or _is_in(host, entry)) for entry in entries)


def _is_in(host: str, entry: str) -> bool:
    try:
        return "/" in entry and ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
