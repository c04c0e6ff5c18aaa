"""Models by chunk between nodes over real connections, and what a hostile node gets: no more than its share."""

import asyncio
from contextlib import contextmanager

import grpc
import pytest

from covey.artifact import Artifact
from covey.errors import NotFound
from covey.gossip.push_sum.events import HalfAsked
from covey.node.models.assembly import Unassembled
from covey.node.models.ports import Lent
from covey.protos import peer_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.transfers.chunks import CHUNKS, encode
from tests.unit.node.peers.hostile import ANSWER_S, Hostile, status_of
from tests.unit.node.peers.swarm import body_of

STATUS = grpc.StatusCode


class Holdings:
    """Lends all that is in a node's files; the newest is what a test says."""

    files: ArtifactFiles
    model: Artifact

    def __init__(self):
        self.told = []

    def newest(self, peer):
        self.told.append(peer)
        return self.model, 5

    @contextmanager
    def lend(self, digest):
        if not self.files.has(digest):
            raise NotFound("this node does not have that model")
        yield Lent(self.files.path(digest))

    def check(self, digest):
        return self.files.check(digest)


async def node_of(swarm, name, *seeds, **options):
    """A node that has the bodies of these seeds; its newest model is the first of them."""
    holdings = Holdings()
    node = await swarm.start(name, holdings=holdings, **options)
    holdings.files = node.files
    bodies = [node.put(body_of(swarm.size_bytes, seed)) for seed in seeds]
    if bodies:
        holdings.model = bodies[0]
    node.holdings = holdings
    return node


async def test_a_model_comes_from_all_that_have_it(large):
    bob, cyd = await node_of(large, "bob", 1), await node_of(large, "cyd", 2, 1)
    ada = await node_of(large, "ada", knows=["bob", "cyd"], listens=False)
    await ada.meets(bob, cyd)
    joined = await ada.network.bring_model()
    assert ada.files.path(joined.model.digest).read_bytes() in (
        body_of(large.size_bytes, 1),
        body_of(large.size_bytes, 2),
    )
    assert joined.step == 5
    assert joined.source in ("bob", "cyd")
    assert sum(joined.came.given.values()) == large.size_bytes
    told = bob.holdings.told + cyd.holdings.told
    assert told == [ada.me]


async def test_peers_that_have_nothing_are_said(large):
    bob = await large.start("bob")
    ada = await large.start("ada", knows=["bob"])
    await ada.meets(bob)
    with pytest.raises(Unassembled, match="bob: this node has no model to give"):
        await ada.network.bring_model()


async def test_a_node_that_asks_for_half_is_heard(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    ada.network.tell(bob.me, HalfAsked(ada.me, 0.0))
    await bob.inbox.until(lambda: bob.inbox.of(HalfAsked) == [ada.me])


# -- hostile ones


async def chunks(hostile, digest, first=0, count=1):
    call = hostile.channel.unary_stream(
        CHUNKS, request_serializer=pb.ChunksRequest.SerializeToString, response_deserializer=None
    )(pb.ChunksRequest(digest=digest, first=first, count=count), timeout=ANSWER_S)
    return [message async for message in call]


async def newest(hostile):
    call = hostile.channel.unary_unary(
        "/covey.v1.Peer/Newest",
        request_serializer=pb.NewestRequest.SerializeToString,
        response_deserializer=pb.NewestReply.FromString,
    )
    return await call(pb.NewestRequest(), timeout=ANSWER_S)


async def test_without_a_link_of_this_run_nothing_is_given(large, identity):
    bob = await node_of(large, "bob", 1)
    digest = bob.holdings.model.digest
    async with Hostile(large.member("bob"), identity("ada")) as ada:
        assert await status_of(chunks(ada, digest)) is STATUS.NOT_FOUND
        assert await status_of(newest(ada)) is STATUS.NOT_FOUND
    async with Hostile(
        large.member("bob"), identity("eve")
    ) as eve:  # a certificate of the authority, but not of the run
        assert await status_of(chunks(eve, digest)) is STATUS.PERMISSION_DENIED
    assert bob.holdings.told == []


async def test_who_asks_for_everything_for_ever_has_it_three_times(large, identity):
    bob = await node_of(large, "bob", 1)
    digest, whole = bob.holdings.model.digest, [encode(part) for part in parts_of(body_of(large.size_bytes, 1))]
    async with Hostile(large.member("bob"), identity("ada")) as ada:
        await ada.linked()
        for wrong in ("../../identity/tls.key", "", "0" * 64):
            assert await status_of(chunks(ada, wrong)) is STATUS.NOT_FOUND
        for first, count in ((0, 0), (0, 2**32 - 1), (3, 1)):
            assert await status_of(chunks(ada, digest, first, count)) is STATUS.INVALID_ARGUMENT
        for _ in range(3):
            assert await chunks(ada, digest, 0, 3) == whole
        for _ in range(5):
            assert await status_of(chunks(ada, digest, 0, 3)) is STATUS.UNAVAILABLE
    cyd = await node_of(large, "cyd", knows=["bob"])
    await cyd.meets(bob)
    assert (await cyd.network.bring_model()).came.given == {"bob": large.size_bytes}


async def test_calls_that_are_not_read_leave_room_for_others(large, identity):
    bob = await node_of(large, "bob", 1)
    digest = bob.holdings.model.digest
    async with Hostile(large.member("bob"), identity("ada")) as ada:
        await ada.linked()
        begin = ada.channel.unary_stream(
            CHUNKS, request_serializer=pb.ChunksRequest.SerializeToString, response_deserializer=None
        )
        calls = [begin(pb.ChunksRequest(digest=digest, first=0, count=3)) for _ in range(6)]
        cyd = await node_of(large, "cyd", knows=["bob"])
        await cyd.meets(bob)
        assert (await cyd.network.bring_model()).came.given == {"bob": large.size_bytes}
        for call in calls:
            call.cancel()


async def test_a_peer_that_gives_garbage_is_named_and_the_model_comes_from_elsewhere(large):
    bob, cyd = await node_of(large, "bob", 1), await node_of(large, "cyd", 1)
    ada = await node_of(large, "ada", knows=["bob", "cyd"])
    await asyncio.gather(ada.meets(bob, cyd))
    path = bob.files.path(bob.holdings.model.digest)
    bob.holdings.check = lambda digest: True  # it does not mind
    path.write_bytes(bytes(large.size_bytes))
    joined = await ada.network.bring_model()
    assert ada.files.path(joined.model.digest).read_bytes() == body_of(large.size_bytes, 1)
    assert joined.came.liars in ((), ("bob",))  # it may not have been its turn
    assert joined.came.given.get("bob") is None


def parts_of(data):
    return [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
