"""What breaks between nodes: cut transfers go on where they broke, silence is noticed, nothing is had twice."""

import asyncio

import pytest

from covey.errors import TransferError
from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.events import PeerSuspected, PeerTrusted, Progressed
from covey.node.peers.links import Link
from covey.node.peers.translation import said_message
from covey.protos import peer_pb2 as pb
from covey.testing.relay import Relay
from tests.unit.node.peers.swarm import WAIT_S, Swarm, body_of

MIB = 1 << 20


@pytest.fixture
async def long(identity, tmp_path):
    async with Swarm(identity, tmp_path, 6 * MIB) as made:
        yield made


@pytest.fixture
async def pair(long):
    """ada, who calls bob through a relay."""
    bob = await long.start("bob")
    async with Relay(long.member("bob").address) as relay:
        long.reach("bob", relay.address)
        ada = await long.start("ada", knows=["bob"], listen="")
        await asyncio.gather(ada.meets(bob), bob.meets(ada))
        yield ada, bob, relay
        await ada.network.stop()


@pytest.mark.parametrize("pushes", [True, False], ids=["pushed", "fetched"])
async def test_a_body_goes_on_where_it_broke(pair, long, pushes):
    ada, bob, relay = pair
    sender, receiver, way = (ada, bob, "up") if pushes else (bob, ada, "down")
    body = sender.put(body_of(long.size_bytes))
    relay.throttle(way, 16 * MIB)
    sending = asyncio.ensure_future(sender.send(receiver, 1, body))
    async with asyncio.timeout(WAIT_S):
        while receiver.files.offset(body) < 2 * MIB:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    relay.partition()
    with pytest.raises(TransferError):
        await sending
    assert receiver.inbox.batches == []
    kept = receiver.files.offset(body)
    relay.reset_counts()
    relay.heal()
    await sender.send_until_there(receiver, 1, body)
    assert 0 < relay.bytes_carried(way) < long.size_bytes - kept + MIB // 2
    assert receiver.inbox.batches == [(sender.me, 1, 7, 3, body.digest)]
    assert receiver.files.path(body.digest).read_bytes() == body_of(long.size_bytes)


async def test_silence_is_suspicious_and_a_link_that_carries_nothing_is_ended_and_made_anew(pair, long):
    ada, bob, relay = pair
    relay.stall("down")
    await ada.suspects(bob)
    assert bob.inbox.of(PeerSuspected) == []
    await ada.inbox.until(lambda: ada.network.connected == [] or bob.me in ada.inbox.of(PeerSuspected))
    ada.inbox.events.clear()
    relay.resume("down")
    await ada.inbox.until(lambda: bob.me in ada.inbox.of(PeerTrusted))
    await ada.send_until_there(bob, 1, ada.put(body_of(long.size_bytes)))
    assert len(bob.inbox.batches) == 1


async def test_under_cuts_at_random_places_every_batch_comes_once(pair, long):
    ada, bob, relay = pair
    relay.cut_each("up", after_bytes=int(2.5 * MIB))
    bodies = [ada.put(body_of(long.size_bytes, seed)) for seed in (1, 2, 3)]
    for sequence, body in enumerate(bodies, 1):
        assert await ada.send_until_there(bob, sequence, body) > 1
    assert [(got[1], got[4]) for got in bob.inbox.batches] == [(n, b.digest) for n, b in enumerate(bodies, 1)]


async def test_a_batch_whose_link_breaks_is_given_up_at_once(pair, long):
    ada, bob, relay = pair
    relay.stall("up")
    sending = asyncio.ensure_future(ada.send(bob, 1, ada.put(body_of(long.size_bytes))))
    await asyncio.sleep(0)
    relay.partition()
    with pytest.raises(TransferError):
        await sending
    relay.heal()
    relay.resume("up")
    await ada.send_until_there(bob, 1, ada.put(body_of(long.size_bytes)))


async def test_the_last_words_of_a_peer_that_is_suspected_already_keep_nobody_waiting(small):
    now = [0.0]
    ada, bob = await small.start("ada", clock=lambda: now[0]), Incarnation("bob")
    link, hub = Link(bob, "bob"), ada.network.hub
    hub.opened(link)
    await ada.inbox.until(lambda: ada.inbox.of(PeerTrusted))
    now[0] = 2.0  # ten beats, as on a machine that did nothing meanwhile: what came is read after that is noticed
    await ada.inbox.until(lambda: ada.inbox.of(PeerSuspected))

    async def last_words():
        yield said_message(Progressed(bob, 7, 0, 0, 0, True, 0.0))
        yield pb.PeerMessage(goodbye=pb.PeerGoodbye(code="stopping"))

    await hub.read(link, last_words())
    hub.closed(link)
    assert ada.inbox.of(Progressed) == [bob]
    await ada.inbox.until(lambda: len(ada.inbox.of(PeerTrusted)) == 2)
    now[0] = 60.0
    await ada.inbox.until(lambda: len(ada.inbox.of(PeerSuspected)) == 2)
