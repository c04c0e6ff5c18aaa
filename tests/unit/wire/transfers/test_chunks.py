import contextlib

import grpc.aio
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from covey.artifact import CHUNK_BYTES
from covey.errors import CorruptChunk
from covey.protos import admin_pb2, coordinator_pb2
from covey.protos.tensors_pb2 import Chunk
from covey.wire.transfers import chunks

SIZES = [0, 1, 127, 128, 16_383, 16_384, CHUNK_BYTES - 1, CHUNK_BYTES]


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_are_protobufs_at_every_length_of_the_length(size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    message = chunks.encode(data)
    assert message == Chunk(data=data).SerializeToString()
    assert chunks.decode(message) == data


@given(st.binary(max_size=1000))
def test_protobuf_reads_what_is_written_here_and_the_reverse(data):
    assert Chunk.FromString(chunks.encode(data)).data == data
    assert chunks.decode(Chunk(data=data).SerializeToString()) == data


def test_a_view_is_written_and_read_without_its_surroundings():
    view = memoryview(b"..chunk..")[2:7]
    message = chunks.encode(view)
    assert isinstance(chunks.decode(message), memoryview)
    assert bytes(chunks.decode(message)) == b"chunk"


@given(st.binary(max_size=40))
@example(b"\x0a")
@example(b"\x0a\x80")
@example(b"\x0a\x80\x80\x80\x80\x80\x80")
@example(b"\x0a\x00")
@example(b"\x0a\x81\x00x")
@example(b"\x0a\x01x\x0a\x01y")
@example(b"\x12\x01x")
def test_hostile_bytes_are_refused_or_mean_what_protobuf_says(message):
    try:
        data = chunks.decode(message)
    except CorruptChunk:
        return
    parsed = Chunk.FromString(message)
    assert parsed.data == data
    assert parsed.SerializeToString() == message


@given(st.binary(max_size=40))
def test_what_protobuf_itself_refuses_is_refused(message):
    with contextlib.suppress(DecodeError):
        Chunk.FromString(message)
        return
    with pytest.raises(CorruptChunk):
        chunks.decode(message)


def test_more_than_a_chunk_is_refused():
    with pytest.raises(CorruptChunk, match="not a chunk"):
        chunks.decode(Chunk(data=bytes(CHUNK_BYTES + 1)).SerializeToString())


@pytest.fixture
async def peer():
    """A server with the three chunk methods; its upload answers with the sum of the sizes."""

    async def download(request, context):
        yield chunks.encode(f"{request.digest} {request.offset}".encode())

    async def version(request, context):
        yield chunks.encode(f"{request.run} {request.version}".encode())

    async def upload(stream, context):
        try:
            total = sum([len(chunk) async for chunk in stream])
        except CorruptChunk as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, error.code)
        return coordinator_pb2.UploadReply(received_bytes=total)

    server = grpc.aio.server()
    coordinator = {"Download": chunks.download_handler(download), "Upload": chunks.upload_handler(upload)}
    admin = {"DownloadVersion": chunks.download_version_handler(version)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("covey.v1.Coordinator", coordinator),
            grpc.method_handlers_generic_handler("covey.v1.Admin", admin),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_the_three_methods_speak_with_each_other(peer):
    request = coordinator_pb2.DownloadRequest(digest="d", offset=7)
    got = [bytes(data) async for data in chunks.decoded(chunks.download_call(peer)(request))]
    assert got == [b"d 7"]
    version = admin_pb2.LocateVersionRequest(run="r", version=3)
    got = [bytes(data) async for data in chunks.decoded(chunks.download_version_call(peer)(version))]
    assert got == [b"r 3"]
    reply = await chunks.upload_call(peer)(iter([chunks.encode(b"abc"), chunks.encode(b"de")]))
    assert reply.received_bytes == 5


async def test_generated_clients_understand_the_handlers(peer):
    call = peer.unary_stream(
        chunks.DOWNLOAD,
        request_serializer=coordinator_pb2.DownloadRequest.SerializeToString,
        response_deserializer=Chunk.FromString,
    )
    got = [chunk.data async for chunk in call(coordinator_pb2.DownloadRequest(digest="x"))]
    assert got == [b"x 0"]


async def test_a_message_that_is_no_chunk_is_an_error_where_the_stream_is_read(peer):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chunks.upload_call(peer)(iter([chunks.encode(b"abc"), b"\xff\xff\xff"]))
    assert caught.value.details() == "corrupt-chunk"


async def test_a_server_that_sends_something_else_is_found_out():
    async def messages():
        yield chunks.encode(b"ok")
        yield b"\x12\x01x"

    with pytest.raises(CorruptChunk):
        [data async for data in chunks.decoded(messages())]
