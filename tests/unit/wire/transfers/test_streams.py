import asyncio
import contextlib
import hashlib
import os
import random
import threading

import grpc.aio
import pytest

from covey.artifact import CHUNK_BYTES, Artifact, artifact_of, artifact_of_file
from covey.errors import CorruptChunk, CoveyError, NotFound, Stalled, StoreError, TransferError
from covey.protos import coordinator_pb2
from covey.storage.files.artifacts import ArtifactFiles
from covey.testing.relay import Relay
from covey.wire.transfers import chunks
from covey.wire.transfers.streams import chunks_of, download, receive, serve_download, upload

STALL_S = 20.0
BIG = 12 * CHUNK_BYTES + 77
FEW = 6 * CHUNK_BYTES
"""What may travel twice after a cut: gRPC's window on the receiver's side, and the buffers of the link."""
FAILED = (grpc.aio.AioRpcError, TransferError)
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]


class Peer:
    """A server of downloads and uploads over its own folder, and what went wrong in it."""

    def __init__(self, root, download_stall_s=STALL_S):
        self.files = ArtifactFiles(root)
        self.artifacts = {}
        self.errors = []
        self.ended = asyncio.Event()
        self.stall_s, self.on_progress = STALL_S, None
        self.server = grpc.aio.server()
        handlers = {
            "Download": chunks.download_handler(self.download, stall_s=download_stall_s),
            "Upload": chunks.upload_handler(self.upload),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("covey.v1.Coordinator", handlers),))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def download(self, request, context):
        artifact = self.artifacts[request.digest]
        path = self.files.path(request.digest)
        try:
            async for message in serve_download(path, artifact, request.offset):
                yield message
        except CoveyError as error:
            self.errors.append(error)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.code)
        finally:
            self.ended.set()

    async def upload(self, stream, context):
        metadata = dict(context.invocation_metadata())
        artifact = self.artifacts[metadata["covey-digest"]]
        try:
            spool = await asyncio.to_thread(self.files.begin, artifact)
            offset, stall_s, on_progress = int(metadata["covey-offset"]), self.stall_s, self.on_progress
            path = await receive(stream, spool, offset=offset, stall_s=stall_s, on_progress=on_progress)
        except CoveyError as error:
            self.errors.append(error)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.code)
        finally:
            self.ended.set()
        return coordinator_pb2.UploadReply(received_bytes=path.stat().st_size)


@pytest.fixture
async def peer(tmp_path):
    peer = Peer(tmp_path / "server")
    await peer.server.start()
    yield peer
    await peer.server.stop(None)


@pytest.fixture
async def channel(peer):
    async with grpc.aio.insecure_channel(peer.address, options=OPTIONS) as channel:
        yield channel


@pytest.fixture
def files(tmp_path):
    return ArtifactFiles(tmp_path / "client")


def source(peer, tmp_path, size):
    path = tmp_path / f"source-{size}"
    path.write_bytes(os.urandom(size))
    artifact = artifact_of_file(path)
    peer.artifacts[artifact.digest] = artifact
    return path, artifact


def stored(peer, tmp_path, size):
    """A file that the server has."""
    path, artifact = source(peer, tmp_path, size)
    peer.files.adopt(path, artifact)
    return artifact


def same(path, other):
    return hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


# -- whole


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, BIG])
async def test_up_and_down(peer, channel, files, tmp_path, size):
    path, artifact = source(peer, tmp_path, size)
    passed: list[int] = []
    assert await upload(channel, path, artifact, 0, stall_s=STALL_S, on_progress=passed.append) == size
    assert same(path, peer.files.path(artifact.digest))
    got = await download(channel, artifact, files, stall_s=STALL_S, on_progress=passed.append)
    assert got == files.path(artifact.digest)
    assert same(path, got)
    assert sum(passed) == 2 * size
    assert await download(channel, artifact, files, stall_s=STALL_S) == got


async def test_recycled_files_carry_nothing_over(peer, channel, files, tmp_path):
    first, second = stored(peer, tmp_path, BIG), None
    await download(channel, first, files, stall_s=STALL_S)
    files.release([first.digest])
    second = stored(peer, tmp_path, BIG)
    got = await download(channel, second, files, stall_s=STALL_S)
    assert artifact_of_file(got) == second


async def test_a_file_that_is_not_in_memory_is_read_too(peer, channel, tmp_path):
    path, artifact = source(peer, tmp_path, BIG)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert await upload(channel, path, artifact, 0, stall_s=STALL_S) == BIG


# -- broken links


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cut_at_any_byte_costs_a_few_chunks(peer, files, tmp_path, direction, seed):
    path, artifact = source(peer, tmp_path, BIG)
    if direction == "down":
        path.rename(peer.files.path(artifact.digest))
    async with Relay(peer.address) as relay, grpc.aio.insecure_channel(relay.address, options=OPTIONS) as channel:
        relay.cut_once(direction, random.Random(seed).randrange(1000, BIG))

        async def attempt():
            if direction == "down":
                await download(channel, artifact, files, stall_s=STALL_S)
                return
            await upload(channel, path, artifact, peer.files.offset(artifact), stall_s=STALL_S)

        with pytest.raises(FAILED) as broken:
            await attempt()
        if isinstance(broken.value, grpc.aio.AioRpcError):
            assert broken.value.code() == grpc.StatusCode.UNAVAILABLE
        await peer.ended.wait()
        await eventually(attempt)
        assert relay.cuts == 1
        assert BIG < relay.bytes_carried(direction) < BIG + FEW
    final = (files if direction == "down" else peer.files).path(artifact.digest)
    assert artifact_of_file(final) == artifact


async def eventually(attempt):
    """Again while the channel still connects."""
    while True:
        try:
            return await attempt()
        except FAILED as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() != grpc.StatusCode.UNAVAILABLE:
                raise


async def test_two_uploads_of_one_file_end_in_one_right_file(peer, channel, tmp_path):
    path, artifact = source(peer, tmp_path, BIG)
    both = [upload(channel, path, artifact, 0, stall_s=STALL_S) for _ in range(2)]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert BIG in results
    assert all(result == BIG or isinstance(result, FAILED) for result in results)
    assert all("took over" in str(error) for error in peer.errors)
    assert artifact_of_file(peer.files.path(artifact.digest)) == artifact


# -- wrong bytes, wrong offsets


async def test_a_corrupt_chunk_of_an_upload_is_refused_and_the_rest_is_kept(peer, channel, tmp_path):
    path, artifact = source(peer, tmp_path, BIG)
    right = path.read_bytes()
    path.write_bytes(right[: 2 * CHUNK_BYTES] + b"\0" + right[2 * CHUNK_BYTES + 1 :])
    with pytest.raises(FAILED):
        await upload(channel, path, artifact, 0, stall_s=STALL_S)
    assert [type(error) for error in peer.errors] == [CorruptChunk]
    assert not peer.files.has(artifact.digest)
    assert peer.files.offset(artifact) == 2 * CHUNK_BYTES
    path.write_bytes(right)
    assert await upload(channel, path, artifact, 2 * CHUNK_BYTES, stall_s=STALL_S) == BIG


async def test_a_corrupt_chunk_of_a_download_is_refused(peer, channel, files, tmp_path):
    artifact = stored(peer, tmp_path, BIG)
    with peer.files.path(artifact.digest).open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes(100))
    with pytest.raises(CorruptChunk, match="chunk 1"):
        await download(channel, artifact, files, stall_s=STALL_S)
    assert files.offset(artifact) == CHUNK_BYTES


@pytest.mark.parametrize("offset", [1, CHUNK_BYTES + 1, BIG - 1, BIG + CHUNK_BYTES, 1 << 62])
async def test_hostile_offsets(peer, channel, tmp_path, offset):
    artifact = stored(peer, tmp_path, BIG)
    request = coordinator_pb2.DownloadRequest(digest=artifact.digest, offset=offset)
    with pytest.raises(grpc.aio.AioRpcError, match="transfer-failed"):
        await chunks.download_call(channel)(request).read()
    _, wanted = source(peer, tmp_path, BIG - 1)
    metadata = (("covey-digest", wanted.digest), ("covey-offset", str(offset)))
    with pytest.raises(grpc.aio.AioRpcError, match="transfer-failed"):
        await chunks.upload_call(channel)(iter([chunks.encode(b"x")]), metadata=metadata)
    with pytest.raises(TransferError, match="cannot send"):
        await upload(channel, peer.files.path(artifact.digest), artifact, offset, stall_s=STALL_S)


async def test_an_offset_at_the_end_asks_for_nothing(peer, channel, tmp_path):
    artifact = stored(peer, tmp_path, BIG)
    request = coordinator_pb2.DownloadRequest(digest=artifact.digest, offset=BIG)
    assert [message async for message in chunks.download_call(channel)(request)] == []


@pytest.mark.parametrize("sent", [[b"xy"], [b""], [b"x", b""], [b"x", b"y"], [], [b"\xff"]])
async def test_streams_that_do_not_fit_their_artifact(peer, channel, sent):
    artifact = artifact_of([b"x"])
    peer.artifacts[artifact.digest] = artifact
    messages = [data if data == b"\xff" else chunks.encode(data) for data in sent]
    metadata = (("covey-digest", artifact.digest), ("covey-offset", "0"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chunks.upload_call(channel)(iter(messages), metadata=metadata)
    assert refused.value.details() == ("corrupt-chunk" if sent else "transfer-failed")


async def test_files_that_cannot_be_sent(channel, tmp_path):
    missing = Artifact("0" * 64, 5, b"")
    with pytest.raises(NotFound, match="not here"):
        await upload(channel, tmp_path / "missing", missing, 0, stall_s=STALL_S)
    path = tmp_path / "short"
    path.write_bytes(bytes(10))
    with pytest.raises(StoreError, match="shorter"):
        [message async for message in chunks_of(path, 11)]


# -- no progress


async def hanging(first):
    for chunk in first:
        yield memoryview(chunk)
    await asyncio.Event().wait()


async def test_a_silent_sender_is_found_and_what_came_is_kept(files, tmp_path):
    data = os.urandom(3 * CHUNK_BYTES)
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    artifact = artifact_of(pieces)
    with pytest.raises(Stalled, match=r"0\.05 s"):
        await receive(hanging(pieces[:2]), files.begin(artifact), offset=0, stall_s=0.05)
    assert files.offset(artifact) == 2 * CHUNK_BYTES
    with pytest.raises(Stalled):
        await receive(hanging([]), files.begin(artifact), offset=2 * CHUNK_BYTES, stall_s=0.01)


async def test_progress_however_slow_is_no_failure(files):
    pieces = [os.urandom(CHUNK_BYTES) for _ in range(6)]
    artifact = artifact_of(pieces)

    async def slow():
        for piece in pieces:
            await asyncio.sleep(0.1)
            yield memoryview(piece)

    path = await receive(slow(), files.begin(artifact), offset=0, stall_s=0.4)
    assert artifact_of_file(path) == artifact


async def test_a_slow_disk_is_not_a_silent_sender(files):
    pieces = [os.urandom(CHUNK_BYTES) for _ in range(8)]
    artifact = artifact_of(pieces)
    spool = files.begin(artifact)
    free = threading.Event()
    write = spool.write
    spool.write = lambda chunk: free.wait() and write(chunk)
    asyncio.get_running_loop().call_later(0.3, free.set)

    async def quick():
        for piece in pieces:
            yield memoryview(piece)

    path = await receive(quick(), spool, offset=0, stall_s=0.1)
    assert artifact_of_file(path) == artifact


async def test_a_stalled_link_fails_both_sides_of_an_upload(peer, tmp_path):
    path, artifact = source(peer, tmp_path, 30 * CHUNK_BYTES)
    peer.stall_s = 0.2
    async with Relay(peer.address) as relay, grpc.aio.insecure_channel(relay.address) as channel:

        def stall(done):
            relay.stall("up")
            relay.stall("down")

        peer.on_progress = stall
        with pytest.raises(Stalled):
            await upload(channel, path, artifact, 0, stall_s=0.2)
        await peer.ended.wait()
    assert [type(error) for error in peer.errors] == [Stalled]
    assert CHUNK_BYTES <= peer.files.offset(artifact) < artifact.size_bytes


async def test_a_client_that_takes_nothing_loses_its_download(tmp_path):
    peer = Peer(tmp_path / "server", download_stall_s=0.1)
    await peer.server.start()
    artifact = stored(peer, tmp_path, 30 * CHUNK_BYTES)
    async with grpc.aio.insecure_channel(peer.address) as channel:
        call = chunks.download_call(channel)(coordinator_pb2.DownloadRequest(digest=artifact.digest))
        assert await call.read() is not grpc.aio.EOF
        await peer.ended.wait()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await peer.server.stop(None)


async def test_a_cancelled_transfer_can_be_taken_up_again(files):
    pieces = [os.urandom(CHUNK_BYTES) for _ in range(4)]
    artifact = artifact_of(pieces)
    passed = asyncio.Event()
    task = asyncio.create_task(
        receive(
            hanging(pieces[:3]), files.begin(artifact), offset=0, stall_s=STALL_S, on_progress=lambda _: passed.set()
        )
    )
    await passed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = files.offset(artifact)
    assert kept >= CHUNK_BYTES

    async def rest():
        for piece in pieces[kept // CHUNK_BYTES :]:
            yield memoryview(piece)

    path = await receive(rest(), files.begin(artifact), offset=kept, stall_s=STALL_S)
    assert artifact_of_file(path) == artifact
