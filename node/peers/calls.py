"""The connections that this node opens to a peer: one for small messages and beats, one for bodies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import structlog

from covey.artifact import Artifact
from covey.driver.ending import heed
from covey.errors import NotReady, Stalled, TransferError
from covey.node.peers.hub import Hub
from covey.node.peers.links import Link
from covey.node.peers.roster import Member
from covey.node.peers.translation import eviction_message, hello_from
from covey.protos import peer_pb2 as pb
from covey.protos.peer_pb2_grpc import PeerStub
from covey.wire.artifacts import artifact_from
from covey.wire.channels import secure_channel
from covey.wire.errors import from_rpc_error
from covey.wire.evictions import SignedNotice
from covey.wire.identities.identity import Identity
from covey.wire.pinning import pinned_certificate, pinned_channel
from covey.wire.transfers.chunk_writer import Files
from covey.wire.transfers.chunks import FETCH, PUSH, decoded, model_chunks_call
from covey.wire.transfers.streams import download, upload

if TYPE_CHECKING:
    from covey.protos.peer_pb2_grpc import PeerAsyncStub

log = structlog.get_logger(room="peers")
ANSWER_S = 15.0
"""How long a peer may take for its hello."""
STALL_S = 30.0
MOST_BEFORE = 8
"""So many messages may come before a hello: an evicted node is told so by two."""


def server_name(member: Member) -> str:
    """What a peer's certificate is for."""
    return f"{member.name}.node.covey"


class _Pin:
    """The certificate that a peer is known to show, where its key is pinned: all that connections to it trust."""

    def __init__(self, member: Member, newest: Callable[[], Identity]) -> None:
        self._member, self._newest = member, newest
        self._trusted = b""
        self._looking = asyncio.Lock()

    async def trusted(self) -> bytes:
        """PEM; empty: the authority's certificates for its name. Raises as `pinned_certificate`."""
        member = self._member
        async with self._looking:
            if member.fingerprint and not self._trusted:
                authority, server = self._newest().authority_pem, server_name(member)
                self._trusted = await pinned_certificate(member.address, server, member.fingerprint, authority)
            return self._trusted

    def broke(self, error: grpc.aio.AioRpcError) -> None:
        """Look again who answers, before anything more is said: its certificate may be another one now."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._trusted = b""


class _Line:
    """A connection to a peer, made anew where this node or the peer has another certificate than it was made with."""

    def __init__(self, member: Member, newest: Callable[[], Identity], pin: _Pin, use: str) -> None:
        self._member, self._newest, self._pin, self._use = member, newest, pin, use
        self._made_with = b"", b""
        self._channel: grpc.aio.Channel | None = None
        self._making = asyncio.Lock()

    async def channel(self) -> grpc.aio.Channel:
        """The connection; what goes over an older one breaks off, and is sent again.

        Raises:
            IdentityError: Who answers there is not this peer, or has another key than the one that is pinned.
            TransferError: Nobody answers.
        """
        async with self._making:
            identity, trusted = self._newest(), await self._pin.trusted()
            made_with = identity.certificate_pem, trusted
            if self._channel is None or made_with != self._made_with:
                await self.close()
                server = server_name(self._member)
                address, dummy = self._member.address, f"{self._use} {server}"
                self._channel = secure_channel(address, identity, server_name=server, dummy=dummy, trusted=trusted)
                self._made_with = made_with
            return self._channel

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(Exception):
                await channel.close()


class PeerCalls:
    """Calls to one peer.

    Args:
        member: Whom; it has an address.
        newest: Gives this node's identity as it is now.
        hub: What passes over the link is its.
    """

    def __init__(self, member: Member, newest: Callable[[], Identity], hub: Hub) -> None:
        self.member, self._hub = member, hub
        self._pin = pin = _Pin(member, newest)
        self._control, self._bulk = _Line(member, newest, pin, "peer"), _Line(member, newest, pin, "bodies")

    async def link(self) -> None:
        """Open a link and keep it until it ends. Returns if it stood, else raises.

        Raises:
            CoveyError: There is no link to be had: what the peer says, or what is wrong on the way.
        """
        outbox: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        stub: PeerAsyncStub = PeerStub(await self._control.channel())
        call = stub.Link(self._outgoing(outbox))
        link: Link | None = None
        try:
            link = await self._greeted(call)
            self._hub.opened(link)
            outbox.set_result(link)
            await self._both(link, stub, call)
        except grpc.aio.AioRpcError as error:
            self._pin.broke(error)
            if link is None:
                raise from_rpc_error(error) from error
        finally:
            outbox.cancel()
            if link is not None:
                self._hub.closed(link)
            call.cancel()

    async def _outgoing(self, opened: asyncio.Future[Link]) -> AsyncIterator[pb.PeerMessage]:
        for message in self._hub.greeting():
            yield message
        with contextlib.suppress(asyncio.CancelledError):
            async for message in self._hub.outgoing(await opened):
                yield message

    async def _greeted(self, call: Any) -> Link:
        """The link, once the peer's hello has come and fits. What it has to say of evictions first is taken."""
        try:
            async with asyncio.timeout(ANSWER_S):
                before = 0
                while (message := await call.read()) is not grpc.aio.EOF:
                    hello = hello_from(message)
                    if hello is not None:
                        who = self._hub.admit(self.member.name, hello)
                        return Link(who, self._hub.part.me.node)
                    if (before := before + 1) > MOST_BEFORE:
                        raise NotReady(f"{self.member.name} says too much before its hello")
                    await self._hub.told(message, self.member.name)
                    await self._hub.paced(self.member.name, message)
        except TimeoutError:
            raise Stalled(f"{self.member.name} does not answer") from None
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )
        raise NotReady(f"{self.member.name} ended the link at once")

    async def _both(self, link: Link, stub: PeerAsyncStub, call: Any) -> None:
        """Messages and beats, until either ends, or the link does."""
        beats = stub.Beat(self._hub.beats(link))
        tasks = [
            asyncio.create_task(self._hub.read(link, _messages(call))),
            asyncio.create_task(self._hub.hear_beats(link, beats)),
            asyncio.create_task(link.ended.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.close()
            beats.cancel()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            log.debug("how a link ended", peer=str(link.peer), ends=[repr(end) for end in ends if end])

    async def push(self, path: Path, body: Artifact, offset: int, moved: Callable[[int], None]) -> None:
        """Send a body that the peer granted. Raises `TransferError`, or `StoreError` as `upload`."""
        with self._interrupted():
            channel = await self._bulk.channel()
            await upload(channel, path, body, offset, stall_s=STALL_S, on_progress=moved, method=PUSH)

    async def fetch(self, body: Artifact, files: Files, moved: Callable[[int], None]) -> None:
        """Bring a body here that the peer offered. Raises `TransferError`, or `StoreError` as `download`."""
        with self._interrupted():
            channel = await self._bulk.channel()
            await download(channel, body, files, stall_s=STALL_S, on_progress=moved, method=FETCH)

    async def newest(self) -> tuple[Artifact, int]:
        """The model that the peer gives to this node, and its step; not checked. Raises `CoveyError`."""
        stub: PeerAsyncStub = PeerStub(await self._bulk.channel())
        try:
            with _closed_under():
                reply = await stub.Newest(pb.NewestRequest(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            self._pin.broke(error)
            raise from_rpc_error(error) from error
        return artifact_from(reply.model), reply.step

    async def chunks(self, digest: str, first: int, count: int) -> AsyncGenerator[memoryview, None]:
        """Some chunks of a file of the peer's, whatever their bytes are. Raises `CoveyError`."""
        request = pb.ChunksRequest(digest=digest, first=first, count=count)
        async for chunk in chunks_over(await self._bulk.channel(), request):
            yield chunk

    @contextlib.contextmanager
    def _interrupted(self) -> Iterator[None]:
        try:
            with _closed_under():
                yield
        except grpc.aio.AioRpcError as error:
            self._pin.broke(error)
            meant = from_rpc_error(error)
            raise (meant if isinstance(meant, TransferError) else TransferError(str(meant))) from error

    async def close(self) -> None:
        """Close both connections."""
        for line in (self._control, self._bulk):
            await line.close()


@contextlib.contextmanager
def _closed_under() -> Iterator[None]:
    """Where a connection is closed under a call, gRPC cancels whoever waits: it is told that it broke off instead."""
    try:
        yield
    except asyncio.CancelledError:
        heed()
        raise TransferError("the connection was closed: the peer has another address, key or certificate") from None


async def _messages(call: Any) -> AsyncIterator[pb.PeerMessage]:
    """What comes after the first message: one call's messages are read in one way only."""
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message


async def chunks_over(channel: grpc.aio.Channel, request: pb.ChunksRequest) -> AsyncGenerator[memoryview, None]:
    """The chunks that a node answers a request with.

    Raises:
        CorruptChunk: What comes is no chunk.
        CoveyError: The call failed.
    """
    call = model_chunks_call(channel)(request)
    try:
        with _closed_under():
            async for chunk in decoded(call):
                yield chunk
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()


async def bring_notice(notice: SignedNotice, member: Member, identity: Identity) -> bool:
    """Tell a node of an eviction; whether it was new there.

    Raises:
        CoveyError: It cannot be reached, somebody else answers there, or the notice does not count.
    """
    server, pin = server_name(member), member.fingerprint
    channel = await pinned_channel(member.address, identity, server_name=server, fingerprint=pin, dummy="notice")
    stub: PeerAsyncStub = PeerStub(channel)
    try:
        return (await stub.Notify(eviction_message(notice), timeout=ANSWER_S)).is_new
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        await channel.close()
