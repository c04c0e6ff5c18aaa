"""Ends connections from this side, which grpc.aio has no way to do: a connection is found by the name of its peer.

Linux only: sockets are found under `/proc/self/fd`. Elsewhere nothing is ended, and the callers' other bounds hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import socket
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import unquote

import structlog

from covey.errors import Obstructed

log = structlog.get_logger(room="wire")
FOLDER = "/proc/self/fd"
FAREWELL_S = 1.0
"""So long a caller has to read why, before its connection is ended."""
LOOK_EVERY_S = 2.0
ENOUGH_FILES = 8192
LEAST_FILES = 64
"""A coordinator without nodes has about 35 open, a node 25."""
FEW = 256
"""With fewer open files than this nobody is looked for who has too many connections."""
IPV6_SITE_BITS = 64
"""Whoever has one IPv6 address has this whole network of them."""
Place = tuple[str, int]


def allow_files() -> int:
    """Let this process have as many open files as its machine allows; how many these are.

    Raises:
        Obstructed: Too few to run a daemon.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft < LEAST_FILES:
        raise Obstructed(
            f"only {soft} files may be open at once, and a daemon needs {LEAST_FILES} at least: "
            "raise LimitNOFILE (or ulimit -n)"
        )
    return soft


def allow_many_files() -> None:
    """The same, for who has many callers: each connection is one; errors as in `allow_files`."""
    allowed = allow_files()
    if allowed < ENOUGH_FILES:
        log.warning(
            "few files may be open at once; raise LimitNOFILE (or ulimit -n)", allowed=allowed, wanted=ENOUGH_FILES
        )


def place_of(peer: str) -> Place | None:
    """Host and port of gRPC's name for a peer (`ipv4:HOST:PORT`, `ipv6:%5BHOST%5D:PORT`); None: it has none."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    try:
        return _plain(host.strip("[]")), int(port)
    except ValueError:
        return None


def site_of(peer: str) -> str:
    """What counts as one address of gRPC's name for a peer."""
    place = place_of(peer)
    return peer if place is None else site_of_host(place[0])


def site_of_host(host: str) -> str:
    """What counts as one address: an IPv4 address, or the network that an IPv6 address is in."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
    return str(address)


def _plain(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _open_files() -> list[int]:
    try:
        return [int(name) for name in os.listdir(FOLDER)]
    except OSError:
        return []


def _accepted() -> Iterator[tuple[socket.socket, Place, int]]:
    """Each TCP connection of this process: a handle of our own, its peer, and the port here. Close nothing but that."""
    for fd in _open_files():
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            # A handle of our own: the number may be another file's a moment later, what it stands for may not.
            handle = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with handle:
            try:
                if handle.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                host, port = handle.getpeername()[:2]
                yield handle, (_plain(host), port), handle.getsockname()[1]
            except (OSError, ValueError):
                continue


def end_connections(places: Collection[Place]) -> int:
    """End the connections to these peers; how many there were. Takes a few microseconds for each open file."""
    ended = 0
    for handle, place, _ in _accepted():
        if place in places:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
                ended += 1
    return ended


def end_surplus(most: Mapping[int, int]) -> int:
    """Of each address that has more than so many connections to a port here, end those that are too many.

    Args:
        most: Port of this machine to how many connections one address may have there.
    """
    seen: defaultdict[tuple[int, str], int] = defaultdict(int)
    ended = 0
    for handle, (host, _), port in _accepted():
        if port not in most:
            continue
        seen[port, site_of_host(host)] += 1
        if seen[port, site_of_host(host)] > most[port]:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
                ended += 1
    return ended


class Connections:
    """Ends connections in the background, many at once: one look through the open files serves all that are due."""

    def __init__(self) -> None:
        self._due: set[Place] = set()
        self._sweep: asyncio.Task[None] | None = None

    def end_soon(self, peer: str) -> None:
        """End the connection of a peer (gRPC's name for it), after it had time to read what it was told."""
        place = place_of(peer)
        if place is None:
            return
        self._due.add(place)
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._end_due())

    async def _end_due(self) -> None:
        while self._due:
            await asyncio.sleep(FAREWELL_S)
            due, self._due = self._due, set()
            await asyncio.to_thread(end_connections, due)


async def keep_bounded(most: Mapping[int, int]) -> None:
    """Until cancelled: no address keeps more connections than `most` says; see `end_surplus`."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if len(_open_files()) < FEW:
            continue
        ended = await asyncio.to_thread(end_surplus, most)
        if ended:
            log.warning("connections ended: too many of one address", connections=ended)
