"""Files on their way to nodes: granted in turn, streamed from an offset, and never held by who does nothing."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from covey import messages as msg
from covey.artifact import CHUNK_BYTES, artifact_of
from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.nodes import downloads as module
from covey.coordinator.nodes.downloads import Downloads, permits, wrong_bytes
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.runs.progress import RunProgress
from covey.coordinator.runs.sent_again import Resent
from covey.errors import Conflict, NotFound, TransferError
from covey.protos import tensors_pb2 as pb
from covey.wire.identities.model_pass import DOMAIN, ModelPass
from covey.wire.identities.signing import SigningKey, verify
from covey.wire.transfers.lanes import Lane
from covey.wire.translation import from_coordinator

SMALL, LARGE = b"small", b"L" * (2 * CHUNK_BYTES + 5)
CHUNKS = [LARGE[:CHUNK_BYTES], LARGE[CHUNK_BYTES : 2 * CHUNK_BYTES], LARGE[2 * CHUNK_BYTES :]]
small, large = artifact_of([SMALL]), artifact_of(CHUNKS)


KEY = SigningKey.generate()


class Run:
    """A run that serves files to anybody, and counts what it sent."""

    def __init__(self, *artifacts):
        self.run = SimpleNamespace(run="run", submitted_at=1.0)
        self.files = {artifact.digest: artifact for artifact in artifacts}
        self.progress, self.twice = RunProgress("run", CoordinatorMetrics(), lambda: 1.0), []
        self.progress.entered("ada", NodeProgress("invited"))

    def resent(self, node, resent):
        self.twice.append((node, resent))

    models = "coordinator"

    def ready(self):
        return SimpleNamespace(spec=SimpleNamespace(exchange=SimpleNamespace(models=self.models)))

    def served(self, node, digest):
        return self.files.get(digest)

    @property
    def bytes(self):
        return {node: progress.bytes_sent for node, progress in self.progress.nodes.items()}


@pytest.fixture
def run(world):
    run = Run(small, large)
    world.runs.add(run)
    world.files.put(small, SMALL)
    spool = world.files.begin(large)
    for chunk in CHUNKS:
        spool.write(chunk)
    spool.finish()
    return run


@pytest.fixture
def sessions():
    """Three nodes are connected; two may download at once."""
    sessions = Sessions()
    for node in ("ada", "bob", "cyd"):
        sessions.open(node)
    return sessions


@pytest.fixture
def downloads(world, run, sessions):
    return Downloads(world.runs, world.files, sessions, world.background, permits("fed", KEY))


def granted(sessions, node):
    """What a node was told since it was last asked."""
    outbox = sessions.live()[node].outbox
    return [from_coordinator(outbox.get_nowait()) for _ in range(outbox.qsize())]


def content(message):
    """Of a chunk, as it is sent."""
    return pb.Chunk.FromString(bytes(message)).data


async def got(downloads, node, artifact, offset=0):
    return [content(message) async for message in downloads.stream(node, artifact.digest, offset)]


async def test_a_small_file_needs_no_grant(downloads, run):
    assert await got(downloads, "ada", small) == [SMALL]
    assert run.bytes == {"ada": len(pb.Chunk(data=SMALL).SerializeToString())}


async def test_what_no_run_serves_is_not_granted_and_not_streamed(downloads, sessions, run):
    run.files.pop(large.digest)
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert granted(sessions, "ada") == []
    for digest in (large.digest, "0" * 64, "", "../../etc/passwd"):
        with pytest.raises(NotFound, match="only the base model"):
            await anext(downloads.stream("ada", digest, 0))


async def test_a_large_file_is_streamed_to_whom_it_was_granted(downloads, sessions, run):
    with pytest.raises(NotFound, match="not granted"):
        await got(downloads, "ada", large)
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert granted(sessions, "ada") == [msg.DownloadGrant(large.digest)]
    assert downloads.holds("ada", large.digest)
    assert not downloads.holds("bob", large.digest)
    assert await got(downloads, "ada", large) == CHUNKS
    assert run.bytes == {"ada": sum(len(pb.Chunk(data=chunk).SerializeToString()) for chunk in CHUNKS)}
    assert not downloads.holds("ada", large.digest)  # it is used up


async def test_a_download_goes_on_from_an_offset(downloads):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert b"".join(await got(downloads, "ada", large, CHUNK_BYTES)) == LARGE[CHUNK_BYTES:]


async def test_the_chunks_digests_come_once_to_whom_asked_for_them(downloads, sessions, run):
    downloads.asked("ada", msg.DownloadAsk(large.digest, with_table=True))
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert granted(sessions, "ada") == [
        msg.DownloadGrant(large.digest, large.chunk_sha256),
        msg.DownloadGrant(large.digest),
    ]
    run.files.pop(small.digest)
    downloads.asked("ada", msg.DownloadAsk(small.digest, with_table=True))  # refused, and not remembered
    run.files[small.digest] = small
    downloads.asked("ada", msg.DownloadAsk(small.digest))
    assert granted(sessions, "ada") == [msg.DownloadGrant(small.digest)]


async def test_others_wait_for_their_turn_until_one_is_done_or_gone(downloads, sessions):
    for node in ("ada", "bob", "cyd"):
        downloads.asked(node, msg.DownloadAsk(large.digest, with_table=True))
    assert granted(sessions, "cyd") == []
    downloads.drop("ada")
    assert granted(sessions, "cyd") == [msg.DownloadGrant(large.digest, large.chunk_sha256)]
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    granted(sessions, "ada")
    await got(downloads, "bob", large)
    assert granted(sessions, "ada") == [msg.DownloadGrant(large.digest)]


async def test_what_a_node_asked_for_in_an_earlier_session_is_forgotten_with_it(downloads, sessions):
    for node in ("ada", "bob", "cyd"):
        downloads.asked(node, msg.DownloadAsk(large.digest, with_table=True))
    downloads.drop("cyd")
    downloads.drop("ada")
    assert granted(sessions, "cyd") == []
    downloads.asked("cyd", msg.DownloadAsk(large.digest))
    assert granted(sessions, "cyd") == [msg.DownloadGrant(large.digest)]


async def test_a_grant_that_nobody_can_be_told_of_is_given_to_the_next(downloads, sessions):
    for node in ("ada", "bob", "stranger", "cyd"):
        downloads.asked(node, msg.DownloadAsk(large.digest))
    downloads.drop("ada")
    assert not downloads.holds("stranger", large.digest)
    assert granted(sessions, "cyd") == [msg.DownloadGrant(large.digest)]


async def test_one_download_of_a_file_at_a_time(downloads):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    async with aclosing(downloads.stream("ada", large.digest, 0)) as first:
        assert content(await anext(first)) == CHUNKS[0]
        with pytest.raises(Conflict, match="in progress"):
            await got(downloads, "ada", large)
        assert content(await anext(first)) == CHUNKS[1]  # the first one is not disturbed
    assert not downloads.holds("ada", large.digest)  # it ended, if not at the end


async def test_a_stream_ends_where_its_grant_is_taken_back(downloads):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    async with aclosing(downloads.stream("ada", large.digest, 0)) as stream:
        await anext(stream)
        downloads.drop("ada")
        with pytest.raises(TransferError, match="others wait"):
            await anext(stream)


async def test_a_file_that_is_damaged_is_not_streamed(downloads, world):
    path = world.files.path(small.digest)
    path.unlink()
    path.write_bytes(SMALL[::-1])
    with pytest.raises(NotFound, match="restore a backup"):
        await got(downloads, "ada", small)


async def watched_until(met):
    """Let the watches look, until something has come of it."""
    for _ in range(10_000):
        if met():
            return
        await asyncio.sleep(0)
    raise AssertionError("the watches have done nothing")


@pytest.fixture
def impatient(monkeypatch):
    """A grant with which nothing is begun is taken back at the first look."""
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr(module, "STALL_S", -math.inf)


async def test_a_grant_with_which_nothing_is_done_goes_to_the_next(downloads, sessions, impatient, world):
    for node in ("ada", "bob", "cyd"):
        downloads.asked(node, msg.DownloadAsk(large.digest))
    assert granted(sessions, "cyd") == []
    await watched_until(lambda: world.background.is_idle)  # each was watched, `cyd` too
    assert granted(sessions, "cyd") == [msg.DownloadGrant(large.digest)]
    assert not any(downloads.holds(node, large.digest) for node in ("ada", "bob", "cyd"))


async def test_one_that_is_under_way_keeps_its_grant(downloads, impatient, world):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    downloads.asked("bob", msg.DownloadAsk(large.digest))
    async with aclosing(downloads.stream("ada", large.digest, 0)) as stream:
        await anext(stream)
        await watched_until(lambda: not downloads.holds("bob", large.digest))
        assert downloads.holds("ada", large.digest)
    await watched_until(lambda: world.background.is_idle)


async def test_over_several_connections_each_gets_its_chunks_and_the_last_to_end_frees_the_slot(downloads, sessions):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    shares = []
    for index in range(2):
        assert downloads.holds("ada", large.digest)
        stream = downloads.stream("ada", large.digest, 0, Lane(index, 2))
        shares.append([content(message) async for message in stream])
    assert shares == [CHUNKS[0::2], CHUNKS[1::2]]
    assert not downloads.holds("ada", large.digest)


async def test_a_connection_comes_once_and_their_number_is_one(downloads, sessions):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    async with aclosing(downloads.stream("ada", large.digest, 0, Lane(0, 2))) as going:
        await anext(going)
        for lane in (Lane(0, 2), Lane(1, 3), Lane()):
            with pytest.raises(Conflict):
                await anext(downloads.stream("ada", large.digest, 0, lane))
        assert downloads.holds("ada", large.digest)


async def test_with_one_connection_that_breaks_the_grant_is_used_up(downloads, sessions):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    async with aclosing(downloads.stream("ada", large.digest, 0, Lane(0, 2))) as other:
        async with aclosing(downloads.stream("ada", large.digest, 0, Lane(1, 2))) as going:
            await anext(going)
            await anext(other)
        with pytest.raises(TransferError):
            await anext(other)
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert await got(downloads, "ada", large) == CHUNKS


async def test_where_a_connection_never_came_the_node_may_begin_anew(downloads, sessions):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert [message async for message in downloads.stream("ada", large.digest, 0, Lane(0, 2))]
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    assert await got(downloads, "ada", large) == CHUNKS


async def test_what_passed_before_a_download_broke_is_counted_when_it_passes_again(downloads, sessions, run):
    async def broken_after(chunks, offset):
        downloads.asked("ada", msg.DownloadAsk(large.digest))
        async with aclosing(downloads.stream("ada", large.digest, offset)) as going:
            for _ in range(chunks):
                await anext(going)

    await broken_after(2, 0)
    assert run.twice == []
    downloads.drop("ada")  # its session broke as well
    await broken_after(1, CHUNK_BYTES)  # one of the two had arrived
    assert run.twice == [("ada", Resent(down=CHUNK_BYTES))]
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    await got(downloads, "ada", large, 2 * CHUNK_BYTES)  # now all had
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    await got(downloads, "ada", large)  # a file that came whole, and is wanted once more
    assert run.twice == [("ada", Resent(down=CHUNK_BYTES))]


# -- from other nodes


@pytest.fixture
def spreading(run, sessions):
    """The run's nodes have models from each other; all can be called."""
    run.models = "peers"
    for node, session in sessions.live().items():
        session.greeted, session.peer_address, session.key_sha256 = True, f"{node}:7410", "f" * 64
    return run


async def test_the_first_node_has_a_model_from_here_and_the_others_from_those_that_have_it(
    downloads, sessions, spreading
):
    ask = msg.DownloadAsk(large.digest, takes_peers=True)
    downloads.asked("ada", ask)
    assert granted(sessions, "ada") == [msg.DownloadGrant(large.digest)]
    downloads.asked("bob", ask)
    downloads.asked("cyd", ask)
    assert granted(sessions, "bob") == granted(sessions, "cyd") == []
    assert len(await got(downloads, "ada", large)) == len(CHUNKS)
    assert downloads.reported("ada", msg.ModelReport("run", large.digest, True)) == []
    for node in ("bob", "cyd"):
        [answer] = granted(sessions, node)
        assert (answer.digest, answer.holders) == (large.digest, (msg.GossipMember("ada", "ada:7410", "f" * 64),))
        verify(KEY.public_bytes, answer.statement, answer.signature, DOMAIN)
        assert ModelPass.from_bytes(answer.statement) == ModelPass("fed", "run", node, large.digest)
    with pytest.raises(NotFound, match="not granted"):
        await got(downloads, "bob", large)
    assert spreading.bytes == {"ada": sum(len(pb.Chunk(data=chunk).SerializeToString()) for chunk in CHUNKS)}


async def test_who_gets_nothing_from_others_has_it_from_here_and_names_who_lied(downloads, sessions, spreading):
    ask = msg.DownloadAsk(large.digest, takes_peers=True)
    downloads.reported("ada", msg.ModelReport("run", large.digest, True))  # of a file that nobody asked for yet
    downloads.asked("ada", ask)
    downloads.reported("ada", msg.ModelReport("run", large.digest, True))
    downloads.asked("bob", ask)
    assert [type(answer) for answer in granted(sessions, "bob")] == [msg.ModelElsewhere]
    report = msg.ModelReport("run", large.digest, False, ("cyd", "ada", "eve"))
    assert downloads.reported("bob", report) == ["ada"]  # whom it was sent to
    assert downloads.reported("bob", report) == []
    downloads.asked("bob", msg.DownloadAsk(large.digest))
    assert granted(sessions, "bob") == [msg.DownloadGrant(large.digest)]
    downloads.reported("bob", msg.ModelReport("run", large.digest, True))
    downloads.asked("cyd", ask)
    [answer] = granted(sessions, "cyd")
    assert [member.name for member in answer.holders] == ["bob"]  # ada is not used again
    event = wrong_bytes("run", "ada", "bob", 5.0)
    assert (event.kind, event.run, event.node, event.detail) == ("wrong-model-bytes", "run", "ada", {"to": "bob"})


async def test_whoever_waits_for_a_node_that_is_lost_is_answered(downloads, sessions, spreading):
    ask = msg.DownloadAsk(large.digest, takes_peers=True)
    downloads.asked("ada", ask)
    downloads.asked("bob", ask)
    assert granted(sessions, "bob") == []
    sessions.forget(sessions.live()["ada"])
    downloads.drop("ada")
    assert granted(sessions, "bob") == [msg.DownloadGrant(large.digest)]


async def test_an_older_node_and_a_small_file_have_a_grant_as_ever(downloads, sessions, spreading):
    downloads.asked("ada", msg.DownloadAsk(large.digest))
    downloads.asked("bob", msg.DownloadAsk(small.digest, takes_peers=True))
    assert granted(sessions, "ada") == [msg.DownloadGrant(large.digest)]
    assert granted(sessions, "bob") == [msg.DownloadGrant(small.digest)]
