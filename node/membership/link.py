"""The session with the coordinator, kept alive and opened again. Behind this door there are plain values only."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import stamina
import structlog
from typing_extensions import override

from covey import __version__
from covey import messages as msg
from covey.driver.ending import heed
from covey.driver.steady_clock import steady_clock
from covey.errors import CoveyError, IdentityError, Stalled, VersionMismatch
from covey.node.ports import Link
from covey.protos import coordinator_pb2 as pb
from covey.protos import coordinator_pb2_grpc
from covey.wire.channels import secure_channel
from covey.wire.errors import CODE_KEY, from_rpc_error
from covey.wire.identities.identity import Identity
from covey.wire.reach import NOT_SERVED, WRONG_PORT, why_unreachable
from covey.wire.translation import from_coordinator, to_coordinator

log = structlog.get_logger(room="node")
FIRST_WAIT_S, MAX_WAIT_S = 0.1, 10.0
TELL_S = 60.0
FINAL = ("evicted", "replaced")
"""Goodbyes after which coming back would not help."""
Call = grpc.aio.StreamStreamCall[pb.NodeMessage, pb.CoordinatorMessage]


class Ended(CoveyError):
    """The coordinator ended this node's membership; coming back would not help."""

    code = "ended"


class CoordinatorLink(Link):
    """`covey.node.ports.Link` over gRPC.

    Args:
        identity: The node's keys and certificate.
        server: Where its coordinator is.
        hello: The first message of each session.
        on_message: Told every message of the session but heartbeats, on the event loop; must not block.
        on_lost: Called whenever a session ended.
    """

    def __init__(
        self,
        identity: Identity,
        server: str,
        hello: Callable[[], msg.Hello],
        on_message: Callable[[msg.CoordinatorMessage], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._identity, self.server, self._hello = identity, server, hello
        self._on_message, self._on_lost = on_message, on_lost
        self._outbox: asyncio.Queue[msg.NodeMessage | None] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._heartbeat_s = 10.0
        self._told, self._told_at = "", 0.0
        self._clock = steady_clock()
        self._channel = secure_channel(server, identity, dummy="control")
        self._stub: coordinator_pb2_grpc.CoordinatorAsyncStub = coordinator_pb2_grpc.CoordinatorStub(self._channel)

    @override
    def send(self, message: msg.NodeMessage) -> None:
        if self._connected.is_set():
            self._outbox.put_nowait(message)

    @property
    @override
    def up(self) -> bool:
        return self._connected.is_set()

    @override
    async def connected(self) -> None:
        await self._connected.wait()

    def come_back(self) -> None:
        """End the session, and open another one: what this node declined before, it is asked for again."""
        self._outbox.put_nowait(None)

    async def run(self) -> None:
        """Keep a session open until cancelled.

        Raises:
            Ended: The node was evicted, another process uses its identity, or the versions do not fit.
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
            heed()
            if self._connected.is_set():
                log.warning("connection lost; connecting again", server=self.server)
                log.debug("how it was lost", status=error.code().name, details=error.details())
                return
            if reason := self._identity.explain(self._clock()):
                raise IdentityError(reason) from error
            refusal = from_rpc_error(error)
            if isinstance(refusal, VersionMismatch):
                raise Ended(str(refusal)) from error
            await self._tell(error)
            raise refusal from error
        finally:
            was_connected = self._connected.is_set()
            self._connected.clear()
            self._outbox.put_nowait(None)
            call.cancel()
            if was_connected:
                self._on_lost()

    async def _tell(self, error: grpc.aio.AioRpcError) -> None:
        """Say why there is no connection: when that changes, and every minute."""
        raw, now = f"{error.code().name} {error.details()}", asyncio.get_running_loop().time()
        if (raw, now < self._told_at + TELL_S) == (self._told, True):
            return
        self._told, self._told_at = raw, now
        is_said = CODE_KEY in dict(error.trailing_metadata() or ())
        if by_clock := self._identity.explain():  # it was good by the clock that cannot be set
            reason = f"{by_clock} (this machine's clock was set since this program started; set it right)"
        elif error.code() == NOT_SERVED and not is_said:
            reason = f"this {WRONG_PORT}"
        else:
            why = await why_unreachable(self.server, self._identity.authority_pem) if not is_said else ""
            reason = why or error.details() or error.code().name
        log.warning("cannot connect; trying again", server=self.server, reason=reason)

    async def _listen(self, call: Call) -> None:
        silence_s = 30.0
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    received: Any = await call.read()
            except TimeoutError:
                if self._connected.is_set():
                    log.warning("the coordinator is silent", seconds=silence_s)
                    return
                raise Stalled("the coordinator does not answer") from None
            if received is grpc.aio.EOF:
                if not self._connected.is_set():
                    raise CoveyError(await call.details() or "the coordinator ended the session at once")
                return
            message = _readable(received)
            if isinstance(message, msg.Welcome):
                self._welcomed(message)
                silence_s = max(1.0, 3 * message.heartbeat_s)
            elif isinstance(message, msg.Goodbye) and message.code in FINAL:
                raise Ended(f"{message.code}: {message.reason}")
            if message is not None:
                self._on_message(message)

    def _welcomed(self, welcome: msg.Welcome) -> None:
        if welcome.wire != msg.WIRE:
            raise Ended(_other_version(welcome))
        self._heartbeat_s = max(0.5, welcome.heartbeat_s)
        self._connected.set()
        log.info("connected", server=self.server, node=welcome.node)

    async def _outgoing(self, outbox: asyncio.Queue[msg.NodeMessage | None]) -> AsyncIterator[pb.NodeMessage]:
        yield to_coordinator(self._hello())
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    message = await outbox.get()
            except TimeoutError:
                yield pb.NodeMessage(heartbeat=pb.Heartbeat())
                continue
            if message is None:
                return
            yield to_coordinator(message)

    async def close(self) -> None:
        """Close the channel."""
        with contextlib.suppress(Exception):
            await self._channel.close()


def _worth_another_try(error: Exception) -> bool:
    return isinstance(error, CoveyError) and not isinstance(error, Ended | IdentityError)


def _readable(received: pb.CoordinatorMessage) -> msg.CoordinatorMessage | None:
    """The message; None: a heartbeat, one of a kind that is not known here, or one that cannot be read."""
    try:
        return from_coordinator(received)
    except ValueError as error:
        log.warning("a message that cannot be read", kind=received.WhichOneof("kind"), reason=str(error))
        return None


def _other_version(welcome: msg.Welcome) -> str:
    older = "coordinator" if welcome.wire < msg.WIRE else "node"
    # A coordinator from before versions were said says 0.
    return (
        f"this node (Covey {__version__}) speaks version {msg.WIRE} of the messages between node and coordinator, "
        f"its coordinator (Covey {welcome.version or 'of unknown version'}) version {welcome.wire or 1}: "
        f"upgrade the {older}"
    )
