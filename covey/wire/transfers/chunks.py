"""The one hot message, `covey.v1.Chunk`, written by hand: the bytes on the wire are those of protobuf.

The generated class copies a chunk three times on each side; here a sender copies it once, the receiver never.
Every other message is refused: on a chunk stream nothing but chunks has business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc
import grpc.aio

from covey.artifact import CHUNK_BYTES
from covey.errors import CorruptChunk, Stalled
from covey.protos import admin_pb2, coordinator_pb2, peer_pb2
from covey.wire.errors import abort

DOWNLOAD = "/covey.v1.Coordinator/Download"
UPLOAD = "/covey.v1.Coordinator/Upload"
DOWNLOAD_VERSION = "/covey.v1.Admin/DownloadVersion"
FETCH = "/covey.v1.Peer/Fetch"
PUSH = "/covey.v1.Peer/Push"
CHUNKS = "/covey.v1.Peer/Chunks"

STALL_S = 30.0
_TAG = 0x0A
"""Field 1, length-delimited."""
_MAX_VARINT = 4
"""Bytes of a length below 2**28: far above what a chunk may have."""


def prefix(size_bytes: int) -> bytes:
    """What stands before the data of a chunk; nothing before no data, as proto3 leaves defaults out."""
    if not size_bytes:
        return b""
    out = bytearray([_TAG])
    while size_bytes > 0x7F:
        out.append(size_bytes & 0x7F | 0x80)
        size_bytes >>= 7
    out.append(size_bytes)
    return bytes(out)


def encode(data: bytes | memoryview) -> bytes:
    """A chunk as a message."""
    return b"".join((prefix(len(data)), data))


def decode(message: bytes) -> memoryview:
    """The data of a chunk message, without a copy.

    Raises:
        CorruptChunk: Not what protobuf writes for a chunk of at most 1 MiB.
    """
    if not message:
        return memoryview(b"")
    size, start = _length(message)
    if message[0] != _TAG or start + size != len(message) or not 0 < size <= CHUNK_BYTES:
        raise CorruptChunk("a message on a chunk stream is not a chunk")
    if prefix(size) != message[:start]:
        raise CorruptChunk("a chunk's length is not written in its shortest form")
    return memoryview(message)[start:]


def _length(message: bytes) -> tuple[int, int]:
    """The varint after the tag, and where the data begins; (-1, 0) if there is none."""
    size = 0
    for place, byte in enumerate(message[1 : 1 + _MAX_VARINT]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return size, place + 2
    return -1, 0


async def decoded(messages: AsyncIterable[bytes]) -> AsyncGenerator[memoryview]:
    """The data of each message of a call made by `download_call` or `download_version_call`.

    Decoded here and not by gRPC, which would log an error of a client's deserializer and deliver None.
    """
    async for message in messages:
        yield decode(message)


# -- a server's side

ChunkSource = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[bytes]]
"""A servicer method: request and context in, chunk messages (`covey.wire.transfers.streams.serve_download`) out."""
ChunkSink = Callable[
    [AsyncIterator[memoryview], grpc.aio.ServicerContext[Any, Any]], Awaitable[coordinator_pb2.UploadReply]
]
"""A servicer method: chunks' data and context in, one reply out."""


def _paced(method: ChunkSource, stall_s: float) -> Callable[..., Awaitable[None]]:
    async def serve(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            async with aclosing(cast(AsyncGenerator[bytes], method(request, context))) as messages:
                async for message in messages:
                    async with asyncio.timeout(stall_s):
                        await context.write(message)
        except TimeoutError:
            # After the method has let go of what it held: a client that reads nothing delays its status too.
            await abort(context, Stalled(f"the client took no chunk for {stall_s:g} s"))

    return serve


def download_handler(method: ChunkSource, *, stall_s: float = STALL_S) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Coordinator.Download` and `Peer.Fetch`; a client that takes no chunk for `stall_s` is ended."""
    return grpc.unary_stream_rpc_method_handler(
        _paced(method, stall_s),
        request_deserializer=coordinator_pb2.DownloadRequest.FromString,
        response_serializer=None,
    )


def upload_handler(method: ChunkSink) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Coordinator.Upload` and `Peer.Push`; what is no chunk raises where the method reads it."""
    return grpc.stream_unary_rpc_method_handler(
        method, request_deserializer=decode, response_serializer=coordinator_pb2.UploadReply.SerializeToString
    )


def download_version_handler(method: ChunkSource, *, stall_s: float = STALL_S) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Admin.DownloadVersion`, as `download_handler`."""
    return grpc.unary_stream_rpc_method_handler(
        _paced(method, stall_s),
        request_deserializer=admin_pb2.LocateVersionRequest.FromString,
        response_serializer=None,
    )


def model_chunks_handler(method: ChunkSource, *, stall_s: float = STALL_S) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Peer.Chunks`, as `download_handler`."""
    return grpc.unary_stream_rpc_method_handler(
        _paced(method, stall_s), request_deserializer=peer_pb2.ChunksRequest.FromString, response_serializer=None
    )


# -- a client's side


def download_call(channel: grpc.aio.Channel, method: str = DOWNLOAD) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
    """`Coordinator.Download` (or `FETCH`) of a channel: takes a DownloadRequest, gives chunks (see `decoded`)."""
    return channel.unary_stream(
        method, request_serializer=coordinator_pb2.DownloadRequest.SerializeToString, response_deserializer=None
    )


def upload_call(channel: grpc.aio.Channel, method: str = UPLOAD) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
    """`Coordinator.Upload` (or `PUSH`) of a channel: takes chunk messages, gives an UploadReply."""
    return channel.stream_unary(
        method, request_serializer=None, response_deserializer=coordinator_pb2.UploadReply.FromString
    )


def download_version_call(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
    """`Admin.DownloadVersion` of a channel: takes a LocateVersionRequest, gives chunk messages."""
    return channel.unary_stream(
        DOWNLOAD_VERSION,
        request_serializer=admin_pb2.LocateVersionRequest.SerializeToString,
        response_deserializer=None,
    )


def model_chunks_call(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
    """`Peer.Chunks` of a channel: takes a ChunksRequest, gives chunks (see `decoded`)."""
    return channel.unary_stream(
        CHUNKS, request_serializer=peer_pb2.ChunksRequest.SerializeToString, response_deserializer=None
    )
