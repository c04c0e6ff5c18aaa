"""The connection to the coordinator: one session, kept alive and opened again, and two channels for bulk."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import stamina
import structlog

from covey import __version__
from covey.errors import CoveyError, IdentityError, Stalled
from covey.messages import WIRE
from covey.protos import coordinator_pb2 as pb
from covey.protos import coordinator_pb2_grpc
from covey.wire.channels import secure_channel
from covey.wire.errors import from_rpc_error
from covey.wire.identity import Identity

log = structlog.get_logger(room="node")
FIRST_WAIT_S, MAX_WAIT_S = 0.1, 10.0
FINAL = ("evicted", "replaced")


class Ended(CoveyError):
    """The coordinator ended this node's membership; coming back would not help."""

    code = "ended"


class Link:
    """One node's connection. `on_message` gets every message of the session but heartbeats; `on_lost` every loss.

    Args:
        identity: The node's keys and certificate, and where its coordinator is.
        hello: The first message of each session.
        on_message: Called on the event loop; must not block.
        on_lost: Called whenever a session ended.
    """

    def __init__(
        self,
        identity: Identity,
        server: str,
        hello: Callable[[], pb.Hello],
        on_message: Callable[[pb.CoordinatorMessage], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._identity, self.server, self._hello = identity, server, hello
        self._on_message, self._on_lost = on_message, on_lost
        self._outbox: asyncio.Queue[pb.NodeMessage | None] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._heartbeat_s = 10.0
        self._control = secure_channel(server, identity, dummy="control")
        self.downloads = secure_channel(server, identity, dummy="downloads")
        self.uploads = secure_channel(server, identity, dummy="uploads")
        self._stub: coordinator_pb2_grpc.CoordinatorAsyncStub = coordinator_pb2_grpc.CoordinatorStub(self._control)

    def send(self, message: pb.NodeMessage) -> None:
        """Send in the present session; without one the message is dropped (all can be sent again)."""
        if self._connected.is_set():
            self._outbox.put_nowait(message)

    @property
    def up(self) -> bool:
        """Whether there is a session now."""
        return self._connected.is_set()

    async def connected(self) -> None:
        """Wait until there is a session."""
        await self._connected.wait()

    async def run(self) -> None:
        """Keep a session open until cancelled.

        Raises:
            Ended: The node was evicted, or another process uses its identity.
            IdentityError: The coordinator refuses this identity; the text says why.
        """
        while True:
            async for attempt in stamina.retry_context(
                on=_worth_another_try,
                attempts=None,
                timeout=None,
                wait_initial=FIRST_WAIT_S,
                wait_max=MAX_WAIT_S,
                wait_jitter=FIRST_WAIT_S,
            ):
                with attempt:
                    await self._session()
            await asyncio.sleep(FIRST_WAIT_S * (1 + random.random()))

    async def _session(self) -> None:
        """One session from hello to its end. Returns if it was established, else raises."""
        self._outbox = asyncio.Queue()
        call = self._stub.Session(self._outgoing(self._outbox))
        try:
            await self._listen(call)
        except grpc.aio.AioRpcError as error:
            if self._connected.is_set():
                log.warning("connection lost", reason=error.details() or error.code().name)
                return
            reason = self._identity.explain()
            if reason:
                raise IdentityError(reason) from error
            log.warning("cannot connect", server=self.server, reason=error.details() or error.code().name)
            raise from_rpc_error(error) from error
        finally:
            was_connected = self._connected.is_set()
            self._connected.clear()
            self._outbox.put_nowait(None)
            call.cancel()
            if was_connected:
                self._on_lost()

    async def _listen(self, call: grpc.aio.StreamStreamCall[pb.NodeMessage, pb.CoordinatorMessage]) -> None:
        silence_s = 30.0
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    message: Any = await call.read()
            except TimeoutError:
                if self._connected.is_set():
                    log.warning("the coordinator is silent", seconds=silence_s)
                    return
                raise Stalled("the coordinator does not answer") from None
            if message is grpc.aio.EOF:
                if not self._connected.is_set():
                    raise CoveyError(await call.details() or "the coordinator ended the session at once")
                return
            kind = message.WhichOneof("kind")
            if kind == "welcome":
                silence_s = max(1.0, 3 * message.welcome.heartbeat_s)
                self._heartbeat_s = max(0.5, message.welcome.heartbeat_s)
                self._connected.set()
                log.info("connected", server=self.server, node=message.welcome.node)
            elif kind == "goodbye" and message.goodbye.code in FINAL:
                raise Ended(f"{message.goodbye.code}: {message.goodbye.reason}")
            if kind != "heartbeat":
                self._on_message(message)

    async def _outgoing(self, outbox: asyncio.Queue[pb.NodeMessage | None]) -> AsyncIterator[pb.NodeMessage]:
        yield pb.NodeMessage(hello=self._hello())
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    message = await outbox.get()
            except TimeoutError:
                message = pb.NodeMessage(heartbeat=pb.Heartbeat())
            if message is None:
                return
            yield message

    async def close(self) -> None:
        """Close every channel."""
        with contextlib.suppress(Exception):
            await asyncio.gather(*(c.close() for c in (self._control, self.downloads, self.uploads)))


def _worth_another_try(error: Exception) -> bool:
    return isinstance(error, CoveyError) and not isinstance(error, Ended | IdentityError)


def node_hello(tasks: list[str], device: str, drill: str = "") -> pb.Hello:
    """What a node says of itself; `drill` names the attack that it was started with, if any."""
    return pb.Hello(version=__version__, tasks=tasks, device=device, drill=drill, wire=WIRE)
