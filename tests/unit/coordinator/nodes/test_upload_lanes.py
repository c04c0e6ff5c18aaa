"""The calls of one upload are brought together, and end together."""

import asyncio

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of, artifact_of_file
from covey.coordinator.nodes.upload_lanes import UploadLanes
from covey.errors import Conflict, CorruptChunk, Stalled, TransferError
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.transfers.lanes import Lane
from covey.wire.transfers.streams import receive


async def chunks(*data):
    for each in data:
        yield memoryview(each)


async def silent():
    await asyncio.Event().wait()
    yield memoryview(b"")


async def whole(stream):
    return len(b"".join([bytes(chunk) async for chunk in stream]))


@pytest.fixture
def lanes():
    return UploadLanes(gather_s=20.0)


async def test_one_call_is_taken_as_it_is(lanes):
    assert await lanes.take("ada", "d", 0, Lane(), chunks(b"ab", b"c"), whole) == 3
    assert len(lanes) == 0


async def test_the_calls_come_in_any_order_and_get_the_same_answer(lanes):
    seen = []

    async def take(stream):
        seen.append([bytes(chunk) async for chunk in stream])
        return 7

    sent = {2: chunks(b"2"), 0: chunks(b"0", b"3"), 1: chunks(b"1", b"4")}
    calls = [lanes.take("ada", "d", 0, Lane(index, 3), stream, take) for index, stream in sent.items()]
    assert await asyncio.gather(*calls) == [7, 7, 7]
    assert seen == [[b"0", b"1", b"2", b"3", b"4"]]
    assert len(lanes) == 0


async def test_an_error_is_the_answer_to_all(lanes):
    async def take(stream):
        raise CorruptChunk("no")

    calls = [lanes.take("ada", "d", 0, Lane(index, 2), chunks(), take) for index in range(2)]
    assert [type(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == [CorruptChunk] * 2
    assert len(lanes) == 0


async def test_a_call_that_breaks_ends_the_others(lanes):
    calls = [asyncio.create_task(lanes.take("ada", "d", 0, Lane(index, 3), silent(), whole)) for index in range(3)]
    await asyncio.wait(calls, timeout=0)
    calls[1].cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [TransferError, asyncio.CancelledError, TransferError]
    assert len(lanes) == 0
    sent = [chunks(b"x"), chunks(b"y")]
    again = [lanes.take("ada", "d", 0, Lane(index, 2), stream, whole) for index, stream in enumerate(sent)]
    assert await asyncio.gather(*again) == [2, 2]


async def test_the_same_connection_comes_once(lanes):
    first = asyncio.create_task(lanes.take("ada", "d", 0, Lane(0, 2), silent(), whole))
    await asyncio.wait([first], timeout=0)
    with pytest.raises(Conflict):
        await lanes.take("ada", "d", 0, Lane(0, 2), chunks(), whole)
    assert not first.done()
    first.cancel()


async def test_who_lets_the_others_wait_is_not_waited_for():
    lanes = UploadLanes(gather_s=0.0)
    with pytest.raises(Stalled, match="not all connections"):
        await lanes.take("ada", "d", 0, Lane(0, 2), chunks(b"x"), whole)
    assert len(lanes) == 0


async def test_transfers_of_others_or_from_elsewhere_are_apart(lanes):
    keys = [("ada", "d", 0), ("bob", "d", 0), ("ada", "e", 0), ("ada", "d", 1 << 20)]
    calls = [asyncio.create_task(lanes.take(*key, Lane(0, 2), silent(), whole)) for key in keys]
    await asyncio.wait(calls, timeout=0)
    assert len(lanes) == len(keys)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(lanes) == 0


PIECES = [bytes([number]) * CHUNK_BYTES for number in range(16)]


@pytest.mark.parametrize(("came", "first_missing"), [((4, 4, 3, 4), 14), ((4, 3, 3, 3), 13), ((0, 2, 2, 2), 0)])
async def test_a_transfer_goes_on_at_the_first_chunk_that_is_missing(lanes, tmp_path, came, first_missing):
    """So many chunks came over each of four connections when one of them breaks."""
    files, artifact, missed = ArtifactFiles(tmp_path), artifact_of(PIECES), asyncio.Event()

    async def of(lane, offset, count):
        for start in list(lane.starts(offset, artifact.size_bytes))[:count]:
            yield memoryview(PIECES[start // CHUNK_BYTES])
        if count is not None:
            missed.set()
            await asyncio.Event().wait()

    def sent(offset, counts):
        async def take(stream):
            path = await receive(stream, files.begin(artifact), offset=offset, stall_s=20.0)
            return path.stat().st_size

        four = [Lane(index, 4) for index in range(4)]
        return [
            asyncio.create_task(lanes.take("ada", artifact.digest, offset, lane, of(lane, offset, count), take))
            for lane, count in zip(four, counts, strict=True)
        ]

    calls = sent(0, came)
    await missed.wait()
    calls[2].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    offset = files.offset(artifact)
    assert offset == first_missing * CHUNK_BYTES
    assert await asyncio.gather(*sent(offset, [None] * 4)) == [artifact.size_bytes] * 4
    assert artifact_of_file(files.path(artifact.digest)) == artifact
