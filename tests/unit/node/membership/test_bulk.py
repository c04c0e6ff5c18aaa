"""Files over real gRPC streams, both ways; whatever breaks a transfer is one error, and the next try goes on."""

import asyncio

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.errors import CorruptChunk, NotFound, TransferError
from covey.node.membership.bulk import BulkChannels
from covey.storage.files.artifacts import ArtifactFiles
from covey.testing.relay import Relay
from covey.wire.transfers.lanes import Lane

CONTENT = bytes(range(256)) * (10 << 10)
CHUNKS = [CONTENT[k : k + CHUNK_BYTES] for k in range(0, len(CONTENT), CHUNK_BYTES)]
ARTIFACT = artifact_of(CHUNKS)


@pytest.fixture
def files(tmp_path):
    """The node's."""
    return ArtifactFiles(tmp_path / "node")


@pytest.fixture
async def bulk(served, identity, files):
    bulk = BulkChannels(served.address, identity("n0"), files, stall_s=20.0)
    served.artifacts[ARTIFACT.digest] = ARTIFACT
    yield bulk
    await bulk.close()


async def test_a_file_comes_down(served, bulk, files):
    served.files.put(ARTIFACT, CONTENT)
    passed = []
    await bulk.download(ARTIFACT, passed.append)
    assert files.path(ARTIFACT.digest).read_bytes() == CONTENT
    assert passed == [len(chunk) for chunk in CHUNKS]


async def test_a_download_goes_on_where_it_broke(served, bulk, files):
    served.files.put(ARTIFACT, CONTENT)
    spool = files.begin(ARTIFACT)
    spool.write(memoryview(CHUNKS[0]))
    spool.abandon()
    passed = []
    await bulk.download(ARTIFACT, passed.append)
    assert passed == [len(chunk) for chunk in CHUNKS[1:]]


async def test_a_file_goes_up_from_where_it_is_wanted(served, bulk, tmp_path):
    path = tmp_path / "update"
    path.write_bytes(CONTENT)
    spool = served.files.begin(ARTIFACT)
    spool.write(memoryview(CHUNKS[0]))
    spool.abandon()
    passed = []
    await bulk.upload(path, ARTIFACT, CHUNK_BYTES, passed.append)
    assert served.files.path(ARTIFACT.digest).read_bytes() == CONTENT
    assert sum(passed) == len(CONTENT) - CHUNK_BYTES


async def test_what_the_coordinator_refuses_is_an_interruption(served, bulk, tmp_path):
    path = tmp_path / "update"
    path.write_bytes(CONTENT)
    served.refuses = True
    with pytest.raises(TransferError, match="not granted"):
        await bulk.download(ARTIFACT, lambda count: None)
    with pytest.raises(TransferError):
        await bulk.upload(path, ARTIFACT, 0, lambda count: None)


async def test_wrong_bytes_are_refused(served, bulk, files):
    path = await asyncio.to_thread(served.files.put, ARTIFACT, CONTENT)
    path.write_bytes(b"!" + CONTENT[1:])
    with pytest.raises(CorruptChunk):
        await bulk.download(ARTIFACT, lambda count: None)
    assert not files.has(ARTIFACT.digest)


async def test_a_file_that_is_gone_here_is_no_interruption(bulk, tmp_path):
    with pytest.raises(NotFound):
        await bulk.upload(tmp_path / "gone", ARTIFACT, 0, lambda count: None)


LARGE = bytes(range(256)) * (132 << 10)
LARGE_CHUNKS = [LARGE[k : k + CHUNK_BYTES] for k in range(0, len(LARGE), CHUNK_BYTES)]
large = artifact_of(LARGE_CHUNKS)
FAR_S = 0.1


@pytest.fixture
async def far(served, identity, files):
    """A node's connections to a coordinator that is far away, and the relay between them."""
    async with Relay(served.address) as relay:
        for direction in ("up", "down"):
            relay.latency(direction, FAR_S / 2)
        bulk = BulkChannels(relay.address, identity("n0"), files, stall_s=20.0)
        bulk.most_lanes = 4
        served.artifacts[large.digest] = large
        yield bulk, relay
        await bulk.close()


async def test_over_a_long_way_the_next_large_file_takes_more_connections(served, far, files, tmp_path):
    bulk, relay = far
    served.files.put(large, LARGE)
    for _ in range(2):
        await bulk.download(large, lambda count: None)
        assert files.path(large.digest).read_bytes() == LARGE
        files.release({large.digest})
    _assert_one_then_several(served.lanes)
    served.files.release({large.digest})
    served.lanes.clear()
    path = tmp_path / "update"
    path.write_bytes(LARGE)
    for _ in range(2):
        await bulk.upload(path, large, 0, lambda count: None)
        assert served.files.path(large.digest).read_bytes() == LARGE
        served.files.release({large.digest})
    _assert_one_then_several(served.lanes)
    relay.cut_once("up", 12 * CHUNK_BYTES)  # one of them
    with pytest.raises(TransferError):
        await bulk.upload(path, large, 0, lambda count: None)
    offset = served.files.offset(large)
    assert offset < large.size_bytes
    await bulk.upload(path, large, offset, lambda count: None)
    assert served.files.path(large.digest).read_bytes() == LARGE


def _assert_one_then_several(lanes):
    first, *others = lanes
    assert first == Lane()
    count = others[0].count
    assert count > 1
    assert sorted(others, key=str) == [Lane(index, count) for index in range(count)]


async def test_a_coordinator_that_knows_of_one_connection_only_gets_one(served, bulk, files):
    served.artifacts[large.digest] = large
    served.files.put(large, LARGE)
    await bulk.download(large, lambda count: None)
    assert served.lanes == [Lane()]
