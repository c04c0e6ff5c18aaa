"""What an enrolled peer, or a stranger, may try: it costs only its own messages, and an honest peer's batches come."""

import asyncio
import contextlib
import itertools
import time

import grpc
import grpc.aio
import pytest

from covey.gossip.push_sum.events import PeerEvicted, PeerSuspected, Progressed
from covey.node.peers.calls import MOST_BEFORE
from covey.node.peers.hub import COSTS, MESSAGES
from covey.node.peers.translation import eviction_message
from covey.protos import peer_pb2 as pb
from covey.wire.channels import renewing_credentials, server_options
from covey.wire.evictions import EvictionStatement, sign_eviction
from covey.wire.identities.authority import Authority
from tests.unit.node.peers.hostile import Hostile, answer, end_of, hello_of, messages_of, offer_of, status_of
from tests.unit.node.peers.swarm import body_of

STATUS = grpc.StatusCode
SMALL, LARGE = 1000, (2 << 20) + 5


async def attacked(swarm, identity, cyd, bob, attack):
    """An attack by ada, an enrolled peer; whatever it did, bob's batch comes and nobody suspects bob."""
    async with Hostile(swarm.member("cyd"), identity("ada")) as ada:
        await attack(ada)
        body = bob.put(body_of(swarm.size_bytes, 9))
        await bob.send(cyd, 1, body)
        assert (bob.me, 1, 7, 3, body.digest) in cyd.inbox.batches
        assert bob.me not in cyd.inbox.of(PeerSuspected)


@pytest.fixture
async def small_pair(small):
    cyd = await small.start("cyd")
    bob = await small.start("bob", knows=["cyd"])
    await asyncio.gather(bob.meets(cyd), cyd.meets(bob))
    return cyd, bob


@pytest.fixture
async def large_pair(large):
    cyd = await large.start("cyd")
    bob = await large.start("bob", knows=["cyd"])
    await asyncio.gather(bob.meets(cyd), cyd.meets(bob))
    return cyd, bob


WRONG_OFFERS: dict[str, dict] = {
    "a terabyte": {"size_bytes": 1 << 40},
    "another size": {"size_bytes": SMALL + 4},
    "no table": {"chunk_sha256": b""},
    "another table": {"chunk_sha256": bytes(32)},
    "another digest": {"digest": "0" * 64},
    "a path": {"digest": "../../node.toml"},
    "no digest": {"digest": ""},
    "number 0": {"sequence": 0},
    "a number that cannot be": {"sequence": 1 << 63},
    "no mass": {"units": 0},
    "a step that cannot be": {"step": 1 << 40},
    "half of it": {"came": b"x" * 10},
    "other bytes": {"came": body_of(SMALL, 2)},
    "too much": {"came": b"x" * 70_000},
}


async def test_offers_that_cannot_be_are_refused_and_leave_nothing(small, small_pair, identity):
    cyd, bob = small_pair

    async def attack(ada):
        link = await ada.linked()
        for changes in WRONG_OFFERS.values():
            await link.write(offer_of(body_of(SMALL), **changes))
            refusal = await answer(link, "refused")
            assert refusal.code not in ("", "internal")
            assert refusal.sequence == changes.get("sequence", 1)
        assert cyd.files.bytes_used <= SMALL  # a spool of the one whose bytes were other ones
        await link.write(offer_of(body_of(SMALL), inline=True))
        assert (await answer(link, "acknowledged")).sequence == 1

    await attacked(small, identity, cyd, bob, attack)


async def test_a_reason_of_this_side_s_own_is_not_told(small, small_pair, identity):
    cyd, bob = small_pair
    honest = cyd.inbox.arrived

    async def failing(peer, *batch):
        if peer.node == "ada":
            raise OSError("/srv/secret is full")
        await honest(peer, *batch)

    cyd.inbox.arrived = failing

    async def attack(ada):
        link = await ada.linked()
        await link.write(offer_of(body_of(SMALL), inline=True))
        refusal = await answer(link, "refused")
        assert (refusal.code, "secret" in refusal.reason) == ("internal", False)

    await attacked(small, identity, cyd, bob, attack)


async def test_bodies_come_and_go_only_as_granted(large, large_pair, identity):
    cyd, bob = large_pair
    data = body_of(LARGE)
    digest = offer_of(data).offer.body.digest

    async def attack(ada):
        for call in (ada.push(digest, messages_of(data)), ada.fetch(digest)):
            assert await status_of(call) is STATUS.NOT_FOUND  # without a link
        link = await ada.linked()
        for wanted in (digest, "", "0" * 64, "../../node.toml"):
            assert await status_of(ada.push(wanted, messages_of(data))) is STATUS.NOT_FOUND
            assert await status_of(ada.fetch(wanted)) is STATUS.NOT_FOUND
        await link.write(offer_of(data))
        await answer(link, "grant")
        for offset in ("-1", "1e3", "x", "9" * 30):
            assert await status_of(ada.push(digest, [], offset)) is STATUS.NOT_FOUND
        assert await status_of(ada.push("0" * 64, messages_of(data))) is STATUS.NOT_FOUND
        assert await status_of(ada.fetch(digest)) is STATUS.NOT_FOUND  # its own

    await attacked(large, identity, cyd, bob, attack)


async def test_corrupt_chunks_cost_only_the_attempt(large, large_pair, identity):
    cyd, bob = large_pair
    data = body_of(LARGE)
    good, digest = messages_of(data), offer_of(data).offer.body.digest
    flipped = good[0][:-1] + bytes([good[0][-1] ^ 1])

    async def attack(ada):
        link = await ada.linked()
        await link.write(offer_of(data))
        await answer(link, "grant")
        for bad in ([flipped], [b"\xff" * 100], [good[0][:-1]], [good[1]], [], [good[0], flipped]):
            assert await status_of(ada.push(digest, bad)) not in (STATUS.UNKNOWN, STATUS.INTERNAL)
        await link.write(offer_of(data))
        grant = await answer(link, "grant")
        assert grant.offset == 1 << 20  # what was valid is kept, and nothing else
        await ada.push(digest, good[1:], str(grant.offset))
        assert (await answer(link, "acknowledged")).sequence == 1

    await attacked(large, identity, cyd, bob, attack)


async def test_answers_to_what_was_never_asked_change_nothing(small, small_pair, identity):
    cyd, bob = small_pair

    async def attack(ada):
        link = await ada.linked()
        for message in (
            pb.PeerMessage(grant=pb.BatchGrant(sequence=1, digest="0" * 64, offset=1 << 60)),
            pb.PeerMessage(acknowledged=pb.BatchAcknowledged(sequence=1)),
            pb.PeerMessage(refused=pb.BatchRefused(sequence=1, code="ledger", reason="\x1b[2J" * 1000)),
            pb.PeerMessage(progress=pb.PeerProgress(step=-7)),
            pb.PeerMessage(progress=pb.PeerProgress(step=1 << 40)),
            pb.PeerMessage(progress=pb.PeerProgress(sequence=1 << 60)),
            pb.PeerMessage(left=pb.PeerHasLeft(applied=1 << 62)),
            pb.PeerMessage(eviction=pb.SignedEviction(statement=b"[" * 100_000)),
            pb.PeerMessage(),
            hello_of(incarnation=9),
        ):
            await link.write(message)
        await link.write(pb.PeerMessage(progress=pb.PeerProgress(step=4)))
        await cyd.inbox.until(lambda: [e.step for e in cyd.inbox.events if isinstance(e, Progressed)] == [4])
        assert cyd.inbox.of(PeerEvicted) == []

    await attacked(small, identity, cyd, bob, attack)


async def test_nothing_is_said_before_a_hello_that_fits(small, small_pair, identity):
    cyd, bob = small_pair

    async def attack(ada):
        for first in (pb.PeerMessage(), pb.PeerMessage(progress=pb.PeerProgress(step=1)), hello_of(run="x" * 100_000)):
            link = ada.link()
            await link.write(first)
            assert (await end_of(link))[0] in (STATUS.UNAVAILABLE, STATUS.ALREADY_EXISTS)
        beats = ada.beat()
        await beats.write(pb.PeerBeat(number=1))
        assert (await end_of(beats))[0] is STATUS.NOT_FOUND
        assert "ada" not in {peer.node for peer in cyd.network.connected}

    await attacked(small, identity, cyd, bob, attack)


async def test_floods_are_the_flooder_s_own_problem(small, small_pair, identity):
    cyd, bob = small_pair

    async def flood(call, *messages):
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for message in messages * 10_000:
                await call.write(message)

    async def attack(ada):
        link = await ada.linked(is_alive=False)
        floods = [
            flood(link, pb.PeerMessage(progress=pb.PeerProgress(step=1)), offer_of(body_of(SMALL), units=0)),
            flood(ada.beat(), pb.PeerBeat(number=1)),
            end_of(link),
        ]
        tasks.extend(map(asyncio.ensure_future, floods))
        await cyd.inbox.until(lambda: len(cyd.inbox.of(Progressed)) > 40)

    tasks = []
    await attacked(small, identity, cyd, bob, attack)
    await asyncio.gather(*tasks, return_exceptions=True)
    said = [event for event in cyd.inbox.events if isinstance(event, Progressed)]
    assert len(said) < 5_000


async def test_who_only_holds_calls_open_keeps_nobody_out(small, small_pair, identity):
    cyd, bob = small_pair

    async def attack(ada):
        held = [ada.stream(method, pb.PeerMessage, pb.PeerMessage) for method in ("Link", "Beat") * 15]
        ends = [asyncio.ensure_future(end_of(call)) for call in held]
        for gave_way in itertools.islice(asyncio.as_completed(ends), 20):
            assert (await gave_way)[0] in (STATUS.DEADLINE_EXCEEDED, STATUS.RESOURCE_EXHAUSTED)
        bob.inbox.events.clear()
        await bob.network.stop()
        again = await small.start("bob", knows=["cyd"])
        await again.meets(cyd)
        bob.network, bob.files, bob.inbox = again.network, again.files, again.inbox

    await attacked(small, identity, cyd, bob, attack)


async def test_who_is_called_and_says_no_hello_is_not_listened_to_for_long(small, small_pair, identity, monkeypatch):
    cyd, bob = small_pair
    taken, notified = [], cyd.network.hub.notified

    async def noted(notice, by):
        taken.append(by)
        return await notified(notice, by)

    async def link(requests, context):
        while True:
            yield pb.PeerMessage(eviction=pb.SignedEviction(statement=b"no notice"))

    monkeypatch.setattr(cyd.network.hub, "notified", noted)
    server = grpc.aio.server(options=server_options())
    ways = (pb.PeerMessage.FromString, pb.PeerMessage.SerializeToString)
    methods = {"Link": grpc.stream_stream_rpc_method_handler(link, *ways)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("covey.v1.Peer", methods),))
    ada = identity("ada")
    port = server.add_secure_port("127.0.0.1:0", renewing_credentials(lambda: ada, mutual=True))
    await server.start()
    try:
        small.reach("ada", f"127.0.0.1:{port}")
        began = time.monotonic()
        for _ in range(4):
            assert await small.refusal(cyd, "ada") == "ada says too much before its hello"
        took_s = time.monotonic() - began
    finally:
        await server.stop(0)
    assert len(taken) == 4 * MOST_BEFORE
    assert len(taken) <= 1 + (MESSAGES[0] + MESSAGES[1] * took_s) / COSTS["eviction"]  # over all calls together
    await bob.send(cyd, 1, bob.put(body_of(SMALL)))


async def test_links_are_opened_no_faster_than_is_sensible(small, small_pair, identity):
    cyd, bob = small_pair

    async def attack(ada):
        ended = set()
        for _ in range(60):
            link = ada.link()
            await link.write(hello_of())
            try:
                assert (await link.read()).WhichOneof("kind") == "hello"
            except grpc.aio.AioRpcError as error:
                ended.add(error.details() or "")
        assert any("too many" in text for text in ended)
        assert len(cyd.network.connected) <= 2

    await attacked(small, identity, cyd, bob, attack)


async def test_strangers_and_other_roles_get_nowhere(small, small_pair, identity, authority, tmp_path):
    cyd, bob = small_pair
    for role in ("admin", "auditor"):
        async with Hostile(small.member("cyd"), identity("root", role)) as other:
            link = other.link()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await link.write(hello_of())
            assert (await end_of(link))[0] is STATUS.PERMISSION_DENIED
    async with Hostile(small.member("cyd"), identity("eve")) as uninvited:
        link = uninvited.link()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await link.write(hello_of())
        status, text = await end_of(link)
        assert (status, "takes no part in this run" in text) == (STATUS.PERMISSION_DENIED, True)
    foreign = identity("ada", by=Authority.open(tmp_path / "foreign"))
    bare = grpc.ssl_channel_credentials(authority.pem)
    theirs = grpc.ssl_channel_credentials(authority.pem, foreign.key_pem, foreign.certificate_pem)
    for credentials in (bare, theirs):
        async with Hostile(small.member("cyd"), identity("ada"), credentials) as stranger:
            assert await status_of(stranger.fetch("0" * 64)) is STATUS.UNAVAILABLE
    await bob.send(cyd, 1, bob.put(body_of(SMALL)))


async def test_a_node_cannot_evict(small, small_pair, identity):
    cyd, bob = small_pair
    ada_identity = identity("ada")
    statement = EvictionStatement(ada_identity.federation, "digits", "bob", 1, "I say so", time.time())
    forged = sign_eviction(statement, ada_identity.key_pem, ada_identity.certificate_pem)

    async def attack(ada):
        link = await ada.linked()
        await link.write(pb.PeerMessage(eviction=eviction_message(forged)))
        assert await status_of(ada.notify(eviction_message(forged))) is STATUS.PERMISSION_DENIED
        assert cyd.inbox.of(PeerEvicted) == []

    await attacked(small, identity, cyd, bob, attack)


async def test_a_notice_of_another_run_or_of_a_stranger_is_not_kept(small, small_pair, identity):
    cyd, _ = small_pair
    admin = identity("root", "admin")
    for run, node in (("letters", "bob"), ("digits", "eve")):
        statement = EvictionStatement(admin.federation, run, node, 1, "elsewhere", time.time())
        notice = sign_eviction(statement, admin.key_pem, admin.certificate_pem)
        async with Hostile(small.member("cyd"), admin) as root:
            assert await status_of(root.notify(eviction_message(notice))) is STATUS.NOT_FOUND
    assert cyd.inbox.of(PeerEvicted) == []
