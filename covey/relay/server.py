"""The relay's one port: nodes wait at it, callers are spliced to them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from cryptography import x509

from covey.errors import IdentityError
from covey.relay.client_hello import MAX_BYTES, Incomplete, NotTls, server_name_of
from covey.wire.listeners.buckets import Buckets
from covey.wire.listeners.connections import site_of_host
from covey.wire.registration import CALLED, CHALLENGE_BYTES, GREETING, MAX_FIELD_BYTES, WELCOME, proven_name
from covey.wire.splicing import PIECE_BYTES, keep_alive, splice

log = structlog.get_logger(room="relay")
FIRST_S = 10.0
"""So long a stranger may take until it is known what it wants."""
WAIT_S = 10.0
"""So long a caller waits for a node that has no connection waiting just now."""
MAX_WAITING = 16
"""Connections of one node that wait for callers; the oldest goes."""
MAX_CONNECTIONS = 4096
OF_ADDRESS = (200, 20.0)
"""How many connections one address may open at once, and how many a second after that."""
SUFFIX = ".node.covey"


@dataclass(eq=False)
class _Stream:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(eq=False)
class _Caller:
    stream: _Stream
    first: bytes
    """What was read of it."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


Place = asyncio.Future[_Caller]
"""A node's connection that waits: it is given a caller."""


class RelayServer:
    """Splices callers to nodes.

    Args:
        authority_pem: Whose nodes may wait here.
    """

    def __init__(self, authority_pem: bytes) -> None:
        self._authority = x509.load_pem_x509_certificate(authority_pem)
        self._waiting: dict[str, deque[Place]] = {}
        self._arrived = asyncio.Condition()
        self._opened = Buckets(*OF_ADDRESS)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.spliced = 0
        """How many callers came through."""

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises `OSError` if it cannot be had."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=PIECE_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def waiting(self, name: str) -> int:
        """How many connections of a node wait for callers."""
        return len(self._waiting.get(name, ()))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        address = writer.get_extra_info("peername")
        site = site_of_host(str(address[0]).partition("%")[0]) if address else ""
        if task is None or len(self._tasks) >= MAX_CONNECTIONS or not self._opened.take(site, time.monotonic()):
            writer.close()
            return
        self._tasks.add(task)
        keep_alive(writer)
        try:
            await self._serve(_Stream(reader, writer))
        except (TimeoutError, OSError, EOFError, ValueError, asyncio.CancelledError, IdentityError) as error:
            log.debug("connection ended", peer=site, reason=repr(error))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, stream: _Stream) -> None:
        async with asyncio.timeout(FIRST_S):
            first = await stream.reader.readexactly(1)
            node = await self._registered(stream) if first == GREETING[:1] else ""
        if node:
            await self._wait(node, stream)
            return
        async with asyncio.timeout(FIRST_S):
            name, first = await _wanted(stream.reader, first)
        caller = _Caller(stream, first)
        try:
            async with asyncio.timeout(WAIT_S):
                (await self._free_place(name)).set_result(caller)
            await caller.over.wait()
        finally:
            caller.over.set()

    # -- nodes ------------------------------------------------------------------------------------------------------

    async def _registered(self, stream: _Stream) -> str:
        """Whose connection waits here, once that is proven."""
        if await stream.reader.readexactly(len(GREETING) - 1) != GREETING[1:]:
            raise NotTls("neither a node nor a caller")
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        stream.writer.write(challenge)
        shown, signature = await _field(stream.reader), await _field(stream.reader)
        return proven_name(shown, signature, challenge, self._authority)

    async def _wait(self, name: str, stream: _Stream) -> None:
        """Keep a node's connection until it is given a caller, and then until one of both ends."""
        place: Place = asyncio.get_running_loop().create_future()
        await self._take_place(name, place)
        stream.writer.write(WELCOME)
        gone = asyncio.ensure_future(stream.reader.read(1))  # a node says nothing until it is called
        try:
            await asyncio.wait(cast(set[asyncio.Future[Any]], {gone, place}), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave_place(name, place)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        if not place.done() or place.cancelled():
            return
        caller = place.result()
        self.spliced += 1
        try:
            stream.writer.write(CALLED + caller.first)
            await splice(caller.stream.reader, caller.stream.writer, stream.reader, stream.writer)
        finally:
            caller.over.set()

    async def _take_place(self, name: str, place: Place) -> None:
        waiting = self._waiting.setdefault(name, deque())
        if not waiting:
            log.info("a node waits for callers", node=name)
        waiting.append(place)
        if len(waiting) > MAX_WAITING:
            waiting.popleft().cancel()
        async with self._arrived:
            self._arrived.notify_all()

    def _leave_place(self, name: str, place: Place) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None and place in waiting:
            waiting.remove(place)
        if not waiting:
            self._waiting.pop(name, None)

    async def _free_place(self, name: str) -> Place:
        """A connection of a node that waits; it is the caller's."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.waiting(name))
        return self._waiting[name].popleft()


async def _field(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(2), "big")
    if size > MAX_FIELD_BYTES:
        raise IdentityError("a proof is longer than any that could be right")
    return await reader.readexactly(size)


async def _wanted(reader: asyncio.StreamReader, first: bytes) -> tuple[str, bytes]:
    """Whom a caller wants, and what was read of it."""
    received = first
    while True:
        try:
            name = server_name_of(received)
            break
        except Incomplete:
            piece = await reader.read(MAX_BYTES - len(received))
            if not piece:
                raise NotTls("the caller went away") from None
            received += piece
    if not name.endswith(SUFFIX):
        raise NotTls(f"{name[:80]!r} is no node")
    return name.removesuffix(SUFFIX), received
