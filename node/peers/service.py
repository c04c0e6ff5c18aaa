"""What peers call: links, beats, bodies, notices. Who calls is what the certificate says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from covey.errors import IdentityError, NotFound, NotReady
from covey.node.models.lending import Lender
from covey.node.peers.hub import Hub
from covey.node.peers.links import Link
from covey.node.peers.ports import Holdings
from covey.node.peers.roster import Roster
from covey.node.peers.translation import eviction_from, eviction_message, hello_from
from covey.protos import coordinator_pb2, peer_pb2
from covey.protos import peer_pb2 as pb
from covey.wire.artifacts import artifact_message
from covey.wire.channels import Context, Peer, peer_identity
from covey.wire.errors import translated, translated_stream
from covey.wire.evictions import MAY_EVICT
from covey.wire.listeners.buckets import Buckets
from covey.wire.transfers.chunks import download_handler, model_chunks_handler, upload_handler

GREETING_S = 10.0
"""How long a link may go without its hello."""
LINKS = (30, 1.0)
"""How many links a node may open at once, and how many a second after that."""
NOTICES = (20, 1.0)
MAX_DIGITS = 20


class PeerService:
    """Serves `covey.v1.Peer`."""

    def __init__(self, hub: Hub, roster: Roster, holdings: Holdings | None = None) -> None:
        self._hub, self._roster = hub, roster
        self._holdings, self._lender = holdings, Lender(holdings) if holdings is not None else None
        self._links, self._notices = Buckets(*LINKS), Buckets(*NOTICES)
        self._beating: set[Link] = set()

    def caller(self, context: Context) -> Peer:
        """Who calls: a node of this run, or an admin.

        Raises:
            IdentityError: Neither.
        """
        peer = peer_identity(context)
        if peer.role not in MAY_EVICT:
            self._roster.admit(peer)
        return peer

    def _node(self, context: Context) -> str:
        peer = self.caller(context)
        if peer.role != "node":
            raise IdentityError(f"{peer.name!r} is not a node")
        return peer.name

    def _linked(self, context: Context) -> Link:
        """The link that the caller opened."""
        name = self._node(context)
        link = self._hub.links.named(name)
        if link is None or link.caller != name:
            raise NotFound("this needs a link that the caller opened before")
        return link

    async def link(self, requests: AsyncIterator[pb.PeerMessage], context: Context) -> AsyncIterator[pb.PeerMessage]:
        """A peer's link.

        Raises:
            CoveyError: It does not fit; the text says why.
        """
        name = self._node(context)
        if not self._links.take(name, time.monotonic()):
            raise NotReady("this node opens too many links; come back more slowly")
        first = await self._greeting(requests)
        hello = hello_from(first)
        if hello is None:
            raise NotReady("a link begins with a hello; come back")
        for notice in self._hub.notices_about(name, hello):  # so that it knows, whoever else it may reach
            yield pb.PeerMessage(eviction=eviction_message(notice))
        link = Link(self._hub.admit(name, hello), name)
        self._hub.opened(link)
        reader = asyncio.create_task(self._hub.read(link, requests))
        try:
            for message in self._hub.greeting():
                yield message
            async for message in self._hub.outgoing(link):
                yield message
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader
            self._hub.closed(link)

    async def _greeting(self, requests: AsyncIterator[pb.PeerMessage]) -> pb.PeerMessage:
        try:
            async with asyncio.timeout(GREETING_S):
                return await anext(aiter(requests))
        except (TimeoutError, StopAsyncIteration):
            raise NotReady("the link began without a hello; come back") from None

    async def beat(self, requests: AsyncIterator[pb.PeerBeat], context: Context) -> AsyncIterator[pb.PeerBeat]:
        """Signs of life of a link that the caller opened.

        Raises:
            NotFound: There is none, or it has its beats already.
        """
        link = self._linked(context)
        if link in self._beating:
            raise NotFound("this link has its beats already")
        self._beating.add(link)
        reader = asyncio.create_task(self._hub.hear_beats(link, requests))
        try:
            async for beat in self._hub.beats(link):
                yield beat
        finally:
            self._beating.discard(link)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader

    async def push(self, stream: AsyncIterator[memoryview], context: Context) -> coordinator_pb2.UploadReply:
        """The body of a batch that the caller offered."""
        link = self._linked(context)
        metadata = dict(context.invocation_metadata() or ())
        digest, offset = str(metadata.get("covey-digest", "")), str(metadata.get("covey-offset", "0"))
        if not offset.isascii() or not offset.isdigit() or len(offset) > MAX_DIGITS:
            raise NotFound("covey-offset must be a number of bytes")
        received = await self._hub.batches.receptions.pushed(link, digest, int(offset), stream)
        return coordinator_pb2.UploadReply(received_bytes=received)

    async def fetch(self, request: coordinator_pb2.DownloadRequest, context: Context) -> AsyncGenerator[bytes, None]:
        """The body of a batch that was offered to the caller."""
        link = self._linked(context)
        chunks = self._hub.batches.deliveries.fetched(link, request.digest, request.offset)
        async with contextlib.aclosing(chunks) as messages:
            async for message in messages:
                yield message

    def _in_run(self, context: Context) -> Link:
        """The link to the caller, whoever opened it: its hello has said that it is in this run, and not evicted."""
        link = self._hub.links.named(self._node(context))
        if link is None:
            raise NotFound("this needs a link between both nodes")
        return link

    async def newest(self, _: pb.NewestRequest, context: Context) -> pb.NewestReply:
        """The model that this node gives to the caller.

        Raises:
            NotReady: There is none now.
            NotFound: The caller takes part already.
        """
        link = self._in_run(context)
        if self._holdings is None:
            raise NotReady("this node has no model to give")
        model, step = self._holdings.newest(link.peer)
        return pb.NewestReply(model=artifact_message(model), step=step)

    async def chunks(self, request: pb.ChunksRequest, context: Context) -> AsyncGenerator[bytes, None]:
        """Chunks of a model that this node has."""
        link = self._in_run(context)
        if self._lender is None:
            raise NotReady("this node has no model to give")
        chunks = self._lender.chunks(link.peer.node, request.digest, request.first, request.count)
        async with contextlib.aclosing(chunks) as messages:
            async for message in messages:
                yield message

    async def notify(self, request: pb.SignedEviction, context: Context) -> pb.NotifyReply:
        """A notice of eviction, from a node or an admin.

        Raises:
            CoveyError: It does not count; the text says why.
        """
        name = self.caller(context).name
        if not self._notices.take(name, time.monotonic()):
            raise NotReady("too many notices; come back more slowly")
        return pb.NotifyReply(is_new=await self._hub.notified(eviction_from(request), name))


def peer_handler(service: PeerService) -> grpc.GenericRpcHandler:
    """`covey.v1.Peer`."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Link": grpc.stream_stream_rpc_method_handler(
            translated_stream(service.link),
            request_deserializer=peer_pb2.PeerMessage.FromString,
            response_serializer=peer_pb2.PeerMessage.SerializeToString,
        ),
        "Beat": grpc.stream_stream_rpc_method_handler(
            translated_stream(service.beat),
            request_deserializer=peer_pb2.PeerBeat.FromString,
            response_serializer=peer_pb2.PeerBeat.SerializeToString,
        ),
        "Push": upload_handler(translated(service.push)),
        "Fetch": download_handler(translated_stream(service.fetch)),
        "Newest": grpc.unary_unary_rpc_method_handler(
            translated(service.newest),
            request_deserializer=peer_pb2.NewestRequest.FromString,
            response_serializer=peer_pb2.NewestReply.SerializeToString,
        ),
        "Chunks": model_chunks_handler(translated_stream(service.chunks)),
        "Notify": grpc.unary_unary_rpc_method_handler(
            translated(service.notify),
            request_deserializer=peer_pb2.SignedEviction.FromString,
            response_serializer=peer_pb2.NotifyReply.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler("covey.v1.Peer", methods)
