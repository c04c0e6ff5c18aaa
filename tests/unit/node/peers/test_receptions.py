"""A body whose batch is given up, even at the last moment, is nobody's; what came of one a peer is gone on with."""

import asyncio

import pytest

from covey.driver.background import Background
from covey.errors import TransferError
from covey.gossip.ledger import Batch, Incarnation
from covey.node.gossip.receipts import Receipts
from covey.node.models.holders import Holders
from covey.node.models.newest import bring_newest
from covey.node.models.sources import Candidate
from covey.node.peers.links import Link
from covey.node.peers.receptions import Receptions
from covey.node.peers.translation import mass_message
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.mass_receipts import Notary
from tests.unit.node.peers.hostile import offer_of
from tests.unit.node.peers.swarm import Inbox, artifact, body_of

ADA, BOB = Incarnation("ada"), Incarnation("bob")
CHUNK, SIZE, SMALL = 1 << 20, (2 << 20) + 5, 1000


async def never(peer, body, moved):
    raise AssertionError("ada pushes")


class Side:
    """What bob has of ada; ada sends what a test says."""

    def __init__(self, identity, tmp_path):
        self.files, self.background = ArtifactFiles(tmp_path / "files"), Background()
        self.holders = Holders(self.files)
        self.inbox = Inbox(self.holders)
        self.ada = Receipts(ADA, Notary(identity("ada"), "digits"))
        bob, sizes = Receipts(BOB, Notary(identity("bob"), "digits")), range(SMALL, SIZE + 1)
        self.receptions = Receptions(self.holders, self.inbox, never, self.background, sizes, bob)
        self.link = Link(ADA, "ada")

    def offer(self, data, sequence=1, **options):
        offer = offer_of(data, sequence=sequence, **options).offer
        offer.given.CopyFrom(mass_message(self.ada.given(Batch(BOB, sequence, 7, 7 * sequence))))
        self.receptions.offered(self.link, offer)

    async def granted(self, data):
        async with asyncio.timeout(60):
            while (message := await self.link.outbox.get()) is None or message.grant.digest != artifact(data).digest:
                pass
        return message.grant

    async def push(self, data, after_the_last=lambda: None, start=0, end=None):
        async def stream():
            for at in range(start, end or len(data), CHUNK):
                yield memoryview(data)[at : at + CHUNK]
            after_the_last()

        await self.receptions.pushed(self.link, artifact(data).digest, start, stream())

    def has(self, data):
        return self.files.path(artifact(data).digest).exists()

    async def rest(self):
        self.receptions.drop("ada")
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=60)
        await asyncio.sleep(0)  # a task that has ended says so
        assert self.background.is_idle


@pytest.fixture
def side(identity, tmp_path):
    return Side(identity, tmp_path)


async def test_a_new_offer_with_the_last_chunk(side):
    data, other = body_of(SIZE), body_of(SIZE, 2)
    side.offer(data)
    await side.granted(data)
    with pytest.raises(TransferError, match="given up"):
        await side.push(data, lambda: side.offer(other))
    await side.rest()
    assert not side.has(data)


async def test_a_new_offer_just_after_the_last_chunk(side):
    data, other = body_of(SIZE), body_of(SIZE, 2)
    side.offer(data)
    await side.granted(data)
    await side.push(data)
    assert side.has(data)
    side.offer(other)
    await side.rest()
    assert not side.has(data)


async def test_a_new_offer_while_a_body_that_came_along_is_written(side, monkeypatch):
    data, put, begun, ended = body_of(SMALL), ArtifactFiles.put, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(files, body, content):
        loop.call_soon_threadsafe(begun.set)
        path = put(files, body, content)
        loop.call_soon_threadsafe(ended.set)
        return path

    monkeypatch.setattr(ArtifactFiles, "put", slow)
    side.offer(data, inline=True)
    await begun.wait()
    await side.rest()
    await ended.wait()
    assert not side.has(data)
    assert side.inbox.batches == []


async def test_the_same_body_in_a_new_offer_stays_and_one_that_was_dropped_since_is_nobody_s(side):
    data, other = body_of(SIZE), body_of(SIZE, 2)
    side.offer(data)
    await side.granted(data)
    await side.push(data)
    side.offer(data)
    await side.inbox.until(lambda: len(side.inbox.batches) == 1)
    await side.rest()
    assert side.has(data)
    side.holders.release(artifact(data).digest)  # the receiver mixed it in
    assert not side.has(data)
    side.offer(data, sequence=2)
    await side.granted(data)
    with pytest.raises(TransferError, match="given up"):
        await side.push(data, lambda: side.offer(other, sequence=2))
    await side.rest()
    assert not side.has(data)


async def test_one_unfinished_body_a_peer_stays_and_is_gone_on_with(side):
    bodies = [body_of(SIZE, seed) for seed in range(1, 4)]
    for number, data in enumerate(bodies):
        side.offer(data)
        assert (await side.granted(data)).offset == 0
        with pytest.raises(TransferError):  # the stream ends, or the next offer comes meanwhile
            await side.push(data, lambda number=number: number % 2 and side.offer(body_of(SIZE, 9)), end=CHUNK)
    await side.rest()
    newest = artifact(bodies[-1]).digest
    assert side.files.unfinished() == {newest}
    side.offer(bodies[-1])
    assert (await side.granted(bodies[-1])).offset == CHUNK
    await side.push(bodies[-1], start=CHUNK)
    await side.inbox.until(lambda: len(side.inbox.batches) == 1)
    await side.rest()
    assert (side.files.unfinished(), side.has(bodies[-1])) == (set(), True)


def make(side, data):
    """Bob's worker makes a model."""
    path = side.files.scratch(0)
    path.write_bytes(data)
    side.holders.hold(artifact(data).digest)
    side.files.adopt(path, artifact(data))


async def test_a_model_of_this_node_s_own_stays_when_a_peer_s_batch_with_the_same_one_is_given_up(side):
    """Nodes that average make the same model, bit for bit."""
    data = body_of(SIZE)
    side.offer(data)
    await side.granted(data)

    def breaks():
        make(side, data)
        side.receptions.lost(side.link)

    with pytest.raises(TransferError, match="given up"):
        await side.push(data, breaks)
    await side.rest()
    side.offer(data)  # it is here now, and the peer gives up again
    await side.rest()
    assert (side.has(data), side.files.unfinished()) == (True, set())
    side.holders.release(artifact(data).digest)
    assert not side.has(data)


async def test_what_came_of_a_body_goes_when_this_node_makes_the_same_one(side):
    data = body_of(SIZE)
    side.offer(data)
    await side.granted(data)
    with pytest.raises(TransferError):
        await side.push(data, end=CHUNK)
    assert side.files.unfinished() == {artifact(data).digest}
    make(side, data)
    await side.rest()
    assert (side.has(data), side.files.unfinished()) == (True, set())


async def test_a_model_stays_that_this_node_refuses_to_have_from_a_peer(side):
    data, side.inbox.refusing = body_of(SMALL), "there are no such units"
    make(side, data)
    side.offer(data)
    async with asyncio.timeout(60):
        assert (await side.link.outbox.get()).refused.sequence == 1
    await side.rest()
    assert side.has(data)


async def test_a_joiner_s_model_stays_when_a_batch_with_the_same_one_is_given_up(side):
    data = body_of(SIZE)
    side.offer(data)
    await side.granted(data)

    class Calls:
        async def newest(self, source):
            return artifact(data), 5

        async def ask(self, source, wanted, first, count):
            for at in range(first, first + count):
                yield memoryview(data)[at * CHUNK : (at + 1) * CHUNK]

    joined = await bring_newest([Candidate("cyd")], Calls(), side.holders, range(SIZE, SIZE + 1))
    side.receptions.lost(side.link)
    await side.rest()
    assert side.has(data)
    side.holders.release(joined.model.digest)
    assert not side.has(data)
