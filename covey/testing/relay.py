"""A TCP relay that fails on command: cut, stall, delay, throttle, partition; or that is only far away (latency).

It stands between two processes that talk over real sockets, for example a node and its coordinator (whose TLS
it passes on unread). Directions: `up` from who connected to the target, `down` back.

    async with Relay("127.0.0.1:4700") as relay:
        relay.cut_once("up", after_bytes=5_000_000)
        ...                                  # talk to relay.address
        assert relay.cuts == 1
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, TypeVar

R = TypeVar("R")
Direction = Literal["up", "down"]
PIECE_BYTES = 1 << 16
UNDER_WAY = 4096
"""Pieces that may be on a long way at once: with all of them full 256 MiB."""
BUFFER_BYTES = 1 << 17
"""Kernel buffers of the relay's sockets: what lies in them when a link is cut was passed on, but lost."""


@dataclass
class _Flow:
    """One direction, over all connections."""

    carried: int = 0
    cut_once_at: int | None = None
    cut_each_after: int | None = None
    delay_s: float = 0.0
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    going: asyncio.Event = field(default_factory=asyncio.Event)

    def bytes_until_cut(self, carried_by_connection: int) -> int | None:
        left = []
        if self.cut_once_at is not None:
            left.append(self.cut_once_at - self.carried)
        if self.cut_each_after is not None:
            left.append(self.cut_each_after - carried_by_connection)
        return max(0, min(left)) if left else None


class Relay:
    """Listens on a port of its own and passes everything on to `target` ("HOST:PORT"), except as told.

    Methods take effect at once and are for the event loop that runs the relay; elsewhere use `RelayThread`.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._flows = {"up": _Flow(), "down": _Flow()}
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._partitioned = False
        self._server: asyncio.Server | None = None
        self.address = ""
        """Where to connect instead of the target."""
        self.cuts = 0
        """How many connections were cut by `cut_once` or `cut_each`."""
        self.connections = 0
        """How many connections were made."""

    async def __aenter__(self) -> Relay:
        for flow in self._flows.values():
            flow.going.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    # -- what goes wrong

    def cut_once(self, direction: Direction, after_bytes: int) -> None:
        """Cut the connection that carries the byte after so many more, counted over all of them."""
        flow = self._flows[direction]
        flow.cut_once_at = flow.carried + after_bytes

    def cut_each(self, direction: Direction, after_bytes: int | None) -> None:
        """Cut every connection once it has carried so many bytes in a direction; None: no more."""
        self._flows[direction].cut_each_after = after_bytes

    def stall(self, direction: Direction) -> None:
        """Pass nothing on in a direction, and keep the connections open."""
        self._flows[direction].going.clear()

    def resume(self, direction: Direction) -> None:
        """End a stall; what was held goes on."""
        self._flows[direction].going.set()

    def delay(self, direction: Direction, seconds: float) -> None:
        """Hold each piece (at most 64 KiB) for so long before it goes on."""
        self._flows[direction].delay_s = seconds

    def latency(self, direction: Direction, seconds: float) -> None:
        """Let each piece arrive so long after it was sent, as many as there are at once; for connections to come."""
        self._flows[direction].latency_s = seconds

    def throttle(self, direction: Direction, bytes_per_s: float | None) -> None:
        """Limit each connection's rate in a direction; None: no limit."""
        self._flows[direction].bytes_per_s = bytes_per_s

    def partition(self) -> None:
        """Cut every connection, and every new one as soon as it is made, until `heal`."""
        self._partitioned = True
        for writers in self._connections.values():
            _abort(writers)

    def heal(self) -> None:
        """End a partition."""
        self._partitioned = False

    # -- what went by

    def bytes_carried(self, direction: Direction) -> int:
        """Bytes passed on in a direction since the start or `reset_counts`."""
        return self._flows[direction].carried

    def reset_counts(self) -> None:
        """Count bytes, cuts and connections from 0 again; a `cut_once` that waits is forgotten."""
        self.cuts = self.connections = 0
        for flow in self._flows.values():
            flow.carried, flow.cut_once_at = 0, None

    # -- passing on

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._connections[task] = (writer,)
        try:
            await self._serve(task, reader, writer)
        except (asyncio.CancelledError, OSError):
            _abort(self._connections[task])  # the relay closes, or cuts, or one of both ends is gone
        finally:
            for each in self._connections.pop(task):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._partitioned:
            raise ConnectionAbortedError("partitioned")
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=PIECE_BYTES)
        writers = self._connections[task] = (writer, far_writer)
        for each in writers:
            _keep_short(each)
        both = (self._pass_on("up", reader, writers[1]), self._pass_on("down", far_reader, writers[0]))
        pumps = [asyncio.create_task(pump) for pump in both]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pass_on(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow, carried = self._flows[direction], 0
        async for piece in _far(reader, flow.latency_s) if flow.latency_s else _near(reader):
            await asyncio.sleep(flow.delay_s + (len(piece) / flow.bytes_per_s if flow.bytes_per_s else 0.0))
            await flow.going.wait()
            left = flow.bytes_until_cut(carried)
            cut = left is not None and left < len(piece)
            piece = piece[:left] if cut else piece
            flow.carried, carried = flow.carried + len(piece), carried + len(piece)
            writer.write(piece)
            if cut:
                self.cuts += 1
                if flow.cut_once_at == flow.carried:
                    flow.cut_once_at = None
                raise ConnectionAbortedError("cut, as was asked for")
            await writer.drain()
        writer.write_eof()


async def _near(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(PIECE_BYTES):
        yield piece


async def _far(reader: asyncio.StreamReader, latency_s: float) -> AsyncIterator[bytes]:
    """What comes, so long after it came; the reading does not wait for that."""
    loop, under_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes | OSError]](UNDER_WAY)

    async def read() -> None:
        try:
            async for piece in _near(reader):
                await under_way.put((loop.time() + latency_s, piece))
            await under_way.put((loop.time() + latency_s, b""))
        except OSError as error:
            await under_way.put((0.0, error))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, piece = await under_way.get()
            if isinstance(piece, OSError):
                raise piece
            await asyncio.sleep(due - loop.time())
            if not piece:
                return
            yield piece
    finally:
        reading.cancel()


def _keep_short(writer: asyncio.StreamWriter) -> None:
    writer.transport.set_write_buffer_limits(high=PIECE_BYTES)
    sock = writer.get_extra_info("socket")
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def _abort(writers: tuple[asyncio.StreamWriter, ...]) -> None:
    for writer in writers:
        # With a reset, as a link that breaks: an orderly end could be taken for the end of what was sent.
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


class RelayThread:
    """A `Relay` with an event loop in a thread of its own, for tests that are not asynchronous."""

    def __init__(self, target: str) -> None:
        self._relay = Relay(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> RelayThread:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._relay.__aenter__(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._relay.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, action: Callable[[Relay], R]) -> R:
        """Do something with the relay in its own thread: `thread.do(lambda relay: relay.stall("up"))`."""

        async def act() -> R:
            return action(self._relay)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result()

    @property
    def address(self) -> str:
        """Where to connect instead of the target."""
        return self._relay.address

    @property
    def cuts(self) -> int:
        """How many connections were cut."""
        return self._relay.cuts

    def bytes_carried(self, direction: Direction) -> int:
        """Bytes passed on in a direction since the start or `reset_counts`."""
        return self._relay.bytes_carried(direction)

    def reset_counts(self) -> None:
        """Count bytes, cuts and connections from 0 again; a `cut_once` that waits is forgotten."""
        self.do(lambda relay: relay.reset_counts())

    def cut_once(self, direction: Direction, after_bytes: int) -> None:
        """Cut the connection that carries the byte after so many more, counted over all of them."""
        self.do(lambda relay: relay.cut_once(direction, after_bytes))

    def partition(self) -> None:
        """Cut every connection, and every new one as soon as it is made, until `heal`."""
        self.do(lambda relay: relay.partition())

    def heal(self) -> None:
        """End a partition."""
        self.do(lambda relay: relay.heal())
