"""A file from several nodes: whole and right, whoever breaks off, stalls or lies."""

import asyncio

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.errors import NotFound, TransferError
from covey.node.models.assembly import Unassembled, assemble
from covey.node.models.sources import TRIES, Candidate
from covey.storage.files.artifacts import ArtifactFiles

STALL_S = 0.3
CHUNKS = 12
DATA = b"".join(bytes([index]) * CHUNK_BYTES for index in range(CHUNKS)) + b"the end"
PIECES = [memoryview(DATA)[start : start + CHUNK_BYTES] for start in range(0, len(DATA), CHUNK_BYTES)]
FILE = artifact_of(PIECES)


class Peers:
    """What each node does when it is asked, by name: a function of (first, count) that gives chunks."""

    def __init__(self, **nodes):
        self.nodes, self.asked = nodes, []

    async def ask(self, source, artifact, first, count):
        assert artifact == FILE
        self.asked.append((source, first, count))
        async for chunk in self.nodes[source](first, count):
            yield chunk

    def candidates(self):
        return [Candidate(name) for name in self.nodes]


async def honest(first, count):
    for index in range(first, first + count):
        await asyncio.sleep(0)
        yield PIECES[index]


async def away(first, count):
    raise NotFound("this node does not have that file")
    yield b""


async def breaks_off(first, count):
    yield PIECES[first]
    raise TransferError("the connection broke")


async def stalls(first, count):
    await asyncio.Event().wait()
    yield b""


async def stalls_at_the_last(first, count):
    for index in range(first, first + count - 1):
        yield PIECES[index]
    await asyncio.Event().wait()


async def lies(first, count):
    yield PIECES[first]
    yield memoryview(bytes(CHUNK_BYTES - 1) + b"x")


async def gives_too_much(first, count):
    while True:
        yield memoryview(bytes(CHUNK_BYTES) + b"more")


async def ends_early(first, count):
    yield PIECES[first]


def check(files):
    assert files.path(FILE.digest).read_bytes() == DATA


async def test_several_nodes_give_it_together(tmp_path):
    files, peers, counted = ArtifactFiles(tmp_path), Peers(ada=honest, bob=honest, cyd=honest), []
    came = await assemble(FILE, files, peers.candidates(), peers.ask, on_bytes=counted.append)
    check(files)
    assert sum(came.given.values()) == sum(counted) == FILE.size_bytes
    assert set(came.given) == {"ada", "bob", "cyd"}
    assert (came.liars, came.unreachable, came.broken) == ((), 0, 0)
    again = await assemble(FILE, files, [], peers.ask)  # it is here
    assert again.given == {}


@pytest.mark.parametrize(
    ("other", "unreachable", "broken"),
    [
        (away, True, False),
        (breaks_off, False, True),
        (stalls, True, False),
        (stalls_at_the_last, False, True),
        (ends_early, False, True),
    ],
)
async def test_a_node_that_fails_costs_only_itself(tmp_path, other, unreachable, broken):
    files, peers = ArtifactFiles(tmp_path), Peers(ada=other, bob=honest)
    came = await assemble(FILE, files, peers.candidates(), peers.ask, chunk_s=STALL_S)
    check(files)
    assert came.liars == ()
    assert bool(came.unreachable) <= unreachable  # who is slow may not have failed yet when the other one is through
    assert bool(came.broken) <= broken


@pytest.mark.parametrize("liar", [lies, gives_too_much])
async def test_a_liar_is_named_and_not_asked_again(tmp_path, liar):
    files, peers = ArtifactFiles(tmp_path), Peers(ada=liar, bob=honest)
    came = await assemble(FILE, files, peers.candidates(), peers.ask)
    check(files)
    assert came.liars == ("ada",)
    assert sum(source == "ada" for source, _, _ in peers.asked) == 1


async def test_one_slow_node_alone_is_enough(tmp_path):
    files, peers = ArtifactFiles(tmp_path), Peers(ada=away, bob=breaks_off)
    came = await assemble(FILE, files, peers.candidates(), peers.ask)
    check(files)
    assert came.given == {"bob": FILE.size_bytes}


async def test_what_came_stays_for_the_next_attempt(tmp_path):
    files = ArtifactFiles(tmp_path)

    async def has_some(first, count):
        for index in range(first, min(first + count, 5)):
            yield PIECES[index]
        raise TransferError("that is all")

    peers = Peers(ada=has_some, bob=lies)
    with pytest.raises(Unassembled, match="bob gave wrong bytes") as refusal:
        await assemble(FILE, files, peers.candidates(), peers.ask)
    assert refusal.value.liars == ("bob",)
    assert files.offset(FILE) >= 5 * CHUNK_BYTES
    peers = Peers(cyd=honest)
    await assemble(FILE, files, peers.candidates(), peers.ask)
    check(files)
    assert min(first for _, first, _ in peers.asked) >= 5


async def test_nobody_is_asked_for_ever(tmp_path):
    files, peers = ArtifactFiles(tmp_path), Peers(ada=away)
    with pytest.raises(Unassembled, match=rf"ada could not be asked \({TRIES}\)"):
        await assemble(FILE, files, peers.candidates(), peers.ask)
    with pytest.raises(Unassembled, match="there was nobody to ask"):
        await assemble(FILE, files, [], peers.ask)
    assert len(peers.asked) == TRIES


async def test_who_gives_up_leaves_nobody_asked(tmp_path):
    files, ended = ArtifactFiles(tmp_path), asyncio.Event()

    async def waits(first, count):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        yield b""

    peers = Peers(ada=waits)
    task = asyncio.create_task(assemble(FILE, files, peers.candidates(), peers.ask))
    while not peers.asked:  # noqa: ASYNC110 -- some of it happens in threads
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert files.unfinished() <= {FILE.digest}
