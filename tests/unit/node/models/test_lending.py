"""What a node gives to others: what it has in use, a few calls at a time, and no file for ever."""

from contextlib import contextmanager

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.errors import InvalidUpdate, NotFound, NotReady
from covey.node.models.lending import EACH, MOST_CHUNKS, TIMES, TOTAL, Lender
from covey.node.models.ports import Lent
from covey.wire.transfers.chunks import decode

DATA = bytes(CHUNK_BYTES) + b"a" * CHUNK_BYTES + b"rest"
PIECES = [DATA[start : start + CHUNK_BYTES] for start in range(0, len(DATA), CHUNK_BYTES)]
DIGEST = artifact_of(PIECES).digest


class Shelf:
    def __init__(self, path):
        self.path, self.lent, self.is_right = path, 0, True
        self.table = b""

    @contextmanager
    def lend(self, digest):
        if digest != DIGEST:
            raise NotFound("no such file")
        self.lent += 1
        try:
            yield Lent(self.path, self.table)
        finally:
            self.lent -= 1

    def check(self, digest):
        return self.is_right


@pytest.fixture
def shelf(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(DATA)
    return Shelf(path)


async def given(lender, to="bob", digest=DIGEST, first=0, count=3):
    return [bytes(decode(message)) async for message in lender.chunks(to, digest, first, count)]


@pytest.mark.parametrize(("first", "count"), [(0, 3), (1, 1), (2, 1), (1, 2)])
async def test_chunks_of_a_file(shelf, first, count):
    lender = Lender(shelf)
    assert await given(lender, first=first, count=count) == PIECES[first : first + count]
    assert shelf.lent == 0
    assert lender.sent_bytes > 0


@pytest.mark.parametrize(("first", "count"), [(0, 0), (0, 4), (3, 1), (2**32 - 1, 2**32 - 1), (0, MOST_CHUNKS + 1)])
async def test_chunks_that_there_are_not(shelf, first, count):
    with pytest.raises(InvalidUpdate, match="cannot be given"):
        await given(Lender(shelf), first=first, count=count)
    assert shelf.lent == 0


async def test_a_file_that_is_not_lent_or_is_damaged(shelf):
    with pytest.raises(NotFound):
        await given(Lender(shelf), digest="0" * 64)
    shelf.is_right = False
    with pytest.raises(NotFound, match="damaged"):
        await given(Lender(shelf))


async def test_a_file_that_is_written_over_while_it_is_lent_ends_there_and_no_wrong_byte_leaves(shelf):
    shelf.table = artifact_of(PIECES).chunk_sha256
    lender = Lender(shelf)
    assert await given(lender, first=1, count=2) == PIECES[1:]
    chunks = lender.chunks("bob", DIGEST, 0, 3)
    assert bytes(decode(await anext(chunks))) == PIECES[0]
    with shelf.path.open("r+b") as file:
        file.write(bytes([7]) * len(DATA))
    with pytest.raises(NotFound, match="not have that file any more"):
        await anext(chunks)


async def test_a_file_goes_to_one_node_only_so_often(shelf):
    lender = Lender(shelf)
    for _ in range(TIMES):
        assert await given(lender) == PIECES
    with pytest.raises(NotReady, match=f"bob has had this file {TIMES} times"):
        await given(lender)
    assert await given(lender, to="cyd") == PIECES


async def test_only_so_many_calls_at_once_of_one_node_and_of_all(shelf):
    lender = Lender(shelf)
    calls = [lender.chunks("bob", DIGEST, 0, 3) for _ in range(EACH)]
    calls += [lender.chunks(f"peer-{index}", DIGEST, 0, 3) for index in range(TOTAL - EACH)]
    for call in calls[:EACH]:
        await anext(call)
    with pytest.raises(NotReady, match="just now"):
        await given(lender)
    for call in calls[EACH:]:
        await anext(call)
    with pytest.raises(NotReady, match="just now"):
        await given(lender, to="dan")
    for call in calls:
        await call.aclose()
    assert await given(lender, to="dan") == PIECES
    assert shelf.lent == 0
