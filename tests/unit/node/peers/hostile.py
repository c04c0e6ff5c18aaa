"""A peer that says what it likes: every message is made by hand."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio

from covey.artifact import Artifact
from covey.gossip.ledger import Batch, Incarnation
from covey.node.gossip.receipts import Receipts
from covey.node.peers.translation import WIRE, mass_message
from covey.protos import coordinator_pb2, peer_pb2, tensors_pb2
from covey.protos import peer_pb2 as pb
from covey.wire.channels import channel_credentials, channel_options
from covey.wire.mass_receipts import Notary
from covey.wire.transfers.chunks import FETCH, PUSH, encode
from tests.unit.node.peers.swarm import SPEC, artifact

ANSWER_S = 20.0


class Hostile:
    """Calls one node, with an identity or with any credentials. A context manager."""

    def __init__(self, member, identity, credentials=None):
        self.name, self.called = identity.name, member.name
        self.receipts = Receipts(Incarnation(identity.name), Notary(identity, "digits"))
        options = channel_options(f"{member.name}.node.covey", f"hostile-{id(self)}")
        shown = credentials or channel_credentials(identity)
        self.channel = grpc.aio.secure_channel(member.address, shown, options=options)
        self._calls = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for call in self._calls:
            call.cancel()
        await self.channel.close()

    def stream(self, method, request, reply):
        call = self.channel.stream_stream(
            f"/covey.v1.Peer/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )()
        self._calls.append(call)
        return call

    def link(self):
        return self.stream("Link", pb.PeerMessage, pb.PeerMessage)

    def beat(self):
        return self.stream("Beat", pb.PeerBeat, pb.PeerBeat)

    async def linked(self, *, is_alive=True, **hello):
        """A link that was greeted; with its beats, if this peer is to show signs of life."""
        call = Signing(self.link(), self.receipts, self.called)
        await call.write(hello_of(**hello))
        assert (await call.read()).WhichOneof("kind") == "hello"
        if is_alive:
            self._alive = asyncio.ensure_future(self._keep_alive())
        return call

    async def _keep_alive(self):
        beats = self.beat()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for number in range(1, 10_000):
                await beats.write(pb.PeerBeat(number=number))
                await beats.read()

    async def push(self, digest, messages, offset="0"):
        call = self.channel.stream_unary(
            PUSH, request_serializer=None, response_deserializer=coordinator_pb2.UploadReply.FromString
        )
        metadata = (("covey-digest", digest), ("covey-offset", offset))
        return await call(iter(messages), metadata=metadata, timeout=ANSWER_S)

    async def fetch(self, digest, offset=0):
        call = self.channel.unary_stream(
            FETCH,
            request_serializer=coordinator_pb2.DownloadRequest.SerializeToString,
            response_deserializer=tensors_pb2.Chunk.FromString,
        )
        request = coordinator_pb2.DownloadRequest(digest=digest, offset=offset)
        return b"".join([chunk.data async for chunk in call(request, timeout=ANSWER_S)])

    async def notify(self, message):
        call = self.channel.unary_unary(
            "/covey.v1.Peer/Notify",
            request_serializer=peer_pb2.SignedEviction.SerializeToString,
            response_deserializer=peer_pb2.NotifyReply.FromString,
        )
        return await call(message, timeout=ANSWER_S)


class Signing:
    """A link whose offers are signed, as far as they say nothing else of their mass: each as the first of its edge."""

    def __init__(self, call, receipts, called):
        self._call, self._receipts, self._called = call, receipts, called

    def __getattr__(self, name):
        return getattr(self._call, name)

    async def write(self, message):
        if message.WhichOneof("kind") == "offer" and not message.offer.HasField("given"):
            offer = message.offer
            batch = Batch(Incarnation(self._called), offer.sequence, offer.units, offer.units)
            message.offer.given.CopyFrom(mass_message(self._receipts.given(batch)))
        await self._call.write(message)


def hello_of(**changes):
    fields = {"wire": WIRE, "version": "0", "run": "digits", "incarnation": 1, "specification": SPEC, "minted": 1 << 52}
    return pb.PeerMessage(hello=pb.PeerHello(**{**fields, **changes}))


def offer_of(data, *, sequence=1, units=7, step=3, inline=False, came=None, **changes):
    """An offer of a body, with `changes` to what is said of the file."""
    made: Artifact = artifact(data)
    fields = {"digest": made.digest, "size_bytes": made.size_bytes, "chunk_sha256": made.chunk_sha256, **changes}
    body = tensors_pb2.Artifact(**fields)
    data = came if came is not None else data if inline else b""
    return pb.PeerMessage(offer=pb.BatchOffer(sequence=sequence, units=units, step=step, body=body, data=data))


def messages_of(data):
    return [encode(data[start : start + (1 << 20)]) for start in range(0, len(data), 1 << 20)]


async def answer(call, kind):
    """The next message of a kind; others are passed over."""
    async with asyncio.timeout(ANSWER_S):
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)
    raise AssertionError(f"the link ended before {kind!r}: {await call.details()}")


async def end_of(call):
    """The status and text with which a call ends."""
    async with asyncio.timeout(ANSWER_S):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code(), await call.details()


async def status_of(awaitable):
    try:
        await awaitable
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError("it was not refused")
