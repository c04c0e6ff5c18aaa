"""Links, batches and notices between nodes over real connections."""

import asyncio
import errno
import math
from dataclasses import replace

import pytest

from covey.client import authority
from covey.errors import Conflict, CoveyError, IdentityError, LedgerError, TransferError
from covey.gossip.agreement import OrderTold, WaysMeasured
from covey.gossip.ledger import Batch, Incarnation, InEdge, Ledger
from covey.gossip.push_sum.events import PeerEvicted, PeerJoined, PeerLeft, Progressed, StatementsShown
from covey.gossip.receipts import Receipt
from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.receipts import Kept
from covey.node.peers.calls import PeerCalls
from covey.node.peers.roster import Member, Roster
from covey.wire.evictions import FOR_GOOD
from covey.wire.identities.authority import write_private
from covey.wire.mass_receipts import Notary
from tests.unit.node.peers.swarm import Swarm, body_of


@pytest.mark.parametrize("listens", [True, False], ids=["both listen", "one only calls"])
async def test_batches_go_both_ways_over_a_link_that_one_side_opened(large, listens):
    bob = await large.start("bob")
    ada = await large.start("ada", knows=["bob"], listens=listens)
    await asyncio.gather(ada.meets(bob), bob.meets(ada))
    ours, theirs = ada.put(body_of(large.size_bytes, 1)), bob.put(body_of(large.size_bytes, 2))
    await asyncio.gather(ada.send(bob, 1, ours), bob.send(ada, 1, theirs, units=9))
    assert bob.inbox.batches == [(ada.me, 1, 7, 3, ours.digest)]
    assert ada.inbox.batches == [(bob.me, 1, 9, 3, theirs.digest)]
    assert bob.files.path(ours.digest).read_bytes() == body_of(large.size_bytes, 1)
    assert ada.files.path(theirs.digest).read_bytes() == body_of(large.size_bytes, 2)


async def test_a_small_body_comes_along_with_its_offer(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    body = ada.put(body_of(1000))
    await ada.send(bob, 1, body)
    assert bob.inbox.batches == [(ada.me, 1, 7, 3, body.digest)]


async def test_what_is_said_is_heard_and_who_has_said_that_it_has_a_batch_acknowledges_it_again(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await asyncio.gather(ada.meets(bob), bob.meets(ada))
    ada.say(bob, 4)
    await bob.inbox.until(lambda: ada.me in bob.inbox.of(Progressed))
    assert next(event.step for event in bob.inbox.events if isinstance(event, Progressed)) == 4
    bob.say(ada, 4, applied=1)
    await ada.send(bob, 1, ada.put(body_of(1000)))
    assert bob.inbox.batches == []


async def test_a_link_begins_with_what_the_other_side_signed(small):
    ada = await small.start("ada")
    batch = Batch(Incarnation("bob"), 4, 7, 28)
    kept = Kept("in", Receipt(ada.me, batch.peer, 4, 28), ada.receipts.given(batch))
    bob = await small.start("bob", knows=["ada"], kept=[kept])
    await asyncio.gather(ada.meets(bob), bob.meets(ada))
    bob.say(ada, 4)
    await ada.inbox.until(lambda: bob.me in ada.inbox.of(Progressed))
    assert [(e.given, e.had) for e in ada.inbox.events if isinstance(e, StatementsShown)] == [(4, 0)]
    kinds = [type(event) for event in ada.inbox.events]
    assert kinds.index(StatementsShown) < kinds.index(Progressed)
    [receipt] = ada.receipts.take_unwritten()  # had it lost it, it has it now
    assert (receipt.way, receipt.receipt) == ("out", kept.receipt)
    assert [(e.given, e.had) for e in bob.inbox.events if isinstance(e, StatementsShown)] == [(0, 0)]


async def test_what_was_measured_and_an_order_are_heard_and_what_cannot_be_is_passed_over(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await asyncio.gather(ada.meets(bob), bob.meets(ada))
    ways = WaysMeasured(ada.me, {"bob": LinkQuality(1e6, 0.25), "cyd": LinkQuality(0.0, 0.0)})
    order = OrderTold(ada.me, 7, ("cyd", "ada", "bob"))
    for wrong in (math.nan, math.inf, -1.0):
        ada.network.tell(bob.me, WaysMeasured(ada.me, {"bob": LinkQuality(1e6, wrong)}))
    ada.network.tell(bob.me, OrderTold(ada.me, 1 << 31, ("ada",)))
    for said in (ways, order):
        ada.network.tell(bob.me, said)
    await bob.inbox.until(lambda: ada.me in bob.inbox.of(OrderTold))
    heard = [event for event in bob.inbox.events if isinstance(event, WaysMeasured | OrderTold)]
    assert heard == [ways, order]


async def test_a_refusal_has_its_reason_and_the_body_is_not_kept(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    bob.inbox.refusing = "there are no such units"
    body = ada.put(body_of(1000))
    with pytest.raises(LedgerError, match="batch 1: there are no such units"):
        await ada.send(bob, 1, body)
    assert not bob.files.has(body.digest)
    bob.inbox.refusing = ""
    await ada.send(bob, 1, body)
    assert bob.files.has(body.digest)


async def test_a_body_of_another_size_is_refused_before_it_moves(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    with pytest.raises(TransferError, match="a body of 1001 bytes; this run's have 1000"):
        await ada.send(bob, 1, ada.put(body_of(1001)))


async def test_where_bodies_are_encoded_a_shorter_one_is_taken_and_a_longer_one_is_not(identity, tmp_path):
    async with Swarm(identity, tmp_path, range(1, 1001)) as swarm:
        bob = await swarm.start("bob")
        ada = await swarm.start("ada", knows=["bob"])
        await ada.meets(bob)
        with pytest.raises(TransferError, match="a body of 1001 bytes; this run's have 1 to 1000"):
            await ada.send(bob, 1, ada.put(body_of(1001)))
        body = ada.put(body_of(260))
        await ada.send(bob, 1, body)
        assert bob.inbox.batches == [(ada.me, 1, 7, 3, body.digest)]


async def test_without_a_connection_a_batch_is_not_sent(small):
    ada, bob = await small.start("ada"), await small.start("bob")
    with pytest.raises(TransferError, match="no connection to bob"):
        await ada.send(bob, 1, ada.put(body_of(1000)))
    ada.say(bob, 1)  # dropped


async def test_a_peer_that_stops_is_suspected_and_trusted_when_it_is_back(small):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    address = small.member("bob").address
    await bob.network.stop()
    await ada.suspects(bob)
    ada.inbox.events.clear()
    again = await small.start("bob", listen=address)
    await ada.meets(again)


async def test_an_evicted_peer_that_cannot_be_called_is_no_trouble(small, identity):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"])
    await ada.meets(bob)
    await bob.network.stop()
    for _ in range(1200):
        if ada.network.troubles():
            break
        await asyncio.sleep(0.05)
    assert list(ada.network.troubles()) == ["bob"]
    await small.evict(bob.me, identity("root", "admin"), at="ada")
    assert ada.network.troubles() == {}


async def test_nobody_listens_where_another_node_is_called(small):
    await small.start("bob")
    address = small.member("bob").address
    with pytest.raises(Conflict, match=f"at {address}, where ada is to listen, peers call bob; ada is called at no ad"):
        await small.start("ada", knows=["bob"], listen=address)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"run": "letters"}, "ada takes part in run 'letters', and bob in run 'digits'"),
        ({"specification": "6" * 64}, "another specification of run 'digits'"),
        ({"number": 2}, "ada (incarnation 2) cannot take part before ada is evicted"),
    ],
    ids=["run", "specification", "incarnation"],
)
async def test_who_does_not_fit_is_told_so_in_words(small, options, said):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"], **options)
    assert said in await small.refusal(ada, "bob")
    assert bob.network.connected == []


async def test_only_the_key_that_the_peers_file_names_counts(small, identity, authority):
    bob = await small.start("bob", pins={"ada": "0" * 64})
    ada = await small.start("ada", knows=["bob"])
    assert "not the one that the peers file names" in await small.refusal(ada, "bob")
    assert bob.network.connected == []


async def test_an_eviction_reaches_everybody_and_the_evicted_node_comes_back_as_a_new_one(small, identity):
    admin = identity("root", "admin")
    cyd = await small.start("cyd")
    bob = await small.start("bob", knows=["cyd"])
    ada = await small.start("ada", knows=["cyd"])
    await asyncio.gather(bob.meets(cyd), ada.meets(cyd))
    assert await small.evict(ada.me, admin, at="cyd")
    await asyncio.gather(*(node.hears_evicted(ada.me) for node in (ada, bob, cyd)))
    assert not await small.evict(ada.me, admin, at="cyd")
    assert "ada is evicted: lost its disk" in await small.refusal(ada, "cyd")
    await ada.network.stop()
    again = await small.start("ada", knows=["cyd"], number=2)
    await again.meets(cyd)
    await again.hears_evicted(ada.me)
    assert again.me in cyd.inbox.of(PeerJoined)
    await again.send(cyd, 1, again.put(body_of(1000)))
    assert cyd.inbox.batches[-1][0] == again.me
    # For good: whoever names which incarnation, everybody puts out the one that it knows, and takes no further one.
    assert await small.evict(ada.me, admin, at="bob", kind=FOR_GOOD)
    await asyncio.gather(*(node.hears_evicted(again.me) for node in (again, cyd)))
    assert not await small.evict(again.me, admin, at="cyd", kind=FOR_GOOD)
    await again.network.stop()
    third = await small.start("ada", knows=["bob", "cyd"], number=3)
    for peer in ("bob", "cyd"):
        assert "ada is evicted for good: lost its disk; no incarnation of it" in await small.refusal(third, peer)
    await third.hears_evicted(third.me)
    await cyd.network.stop()
    cyd = await small.start("cyd", knows=["bob"])  # with an empty folder: a late node hears it, too
    await cyd.hears_evicted(ada.me)
    assert "for good" in await small.refusal(third, "cyd")


def knows_no_notice_for_good(node):
    """From now on it reads them as a version that does not know them."""
    evicted = node.network.hub.evicted
    read = evicted._read

    def older(notice):
        who, statement = read(notice)
        if statement.is_for_good:
            raise IdentityError("this is no notice of eviction")
        return who, statement

    evicted._read = older


async def test_a_node_of_an_older_version_hears_that_its_incarnation_is_out_and_who_evicts_that_it_knows_no_more(
    small, identity, tmp_path
):
    admin, ada = identity("root", "admin"), Incarnation("ada")
    knows_no_notice_for_good(await small.start("bob"))
    await small.start("cyd")
    roster = Roster({name: small.member(name) for name in ("bob", "cyd")} | {"ada": Member("ada")})
    folder = tmp_path / f"admin-root-{admin.federation[:8]}"
    said = {"reason": "it lies", "for_good": True, "identity_folder": folder}
    for new, known in ((("bob", "cyd"), ()), ((), ("bob", "cyd"))):
        done = await asyncio.to_thread(authority.evict, ada, "digits", roster, **said)
        assert (done.told, done.knew, done.unreachable) == (new, known, {})
        assert list(done.not_for_good) == ["bob"]
        assert "this is no notice of eviction" in done.not_for_good["bob"]
    evicted = await small.start("ada")
    knows_no_notice_for_good(evicted)
    assert "for good" in await small.refusal(evicted, "cyd")
    await evicted.hears_evicted(ada)


async def test_what_a_leaver_signed_reaches_those_that_have_no_link_to_it_and_those_that_come_later(small, identity):
    bob = await small.start("bob")
    ledger = Ledger(into={Incarnation("bob"): InEdge(7, 2), Incarnation("cyd"): InEdge(9, 3)})
    ada = await small.start("ada", knows=["bob"], account=lambda: ledger)
    await asyncio.gather(bob.meets(ada), ada.meets(bob))
    forged = Notary(identity("bob"), "digits").sign_left(ada.me, ledger)
    await bob.network.hub._left(forged, "bob")
    assert not bob.inbox.of(PeerLeft)
    ada.network.tell(bob.me, PeerLeft(ada.me, 2, 0.0))
    await bob.inbox.until(lambda: len(bob.inbox.of(PeerLeft)) == 2)  # its word over its link, and signed
    cyd = await small.start("cyd", knows=["ada"])
    await cyd.inbox.until(lambda: ada.me in cyd.inbox.of(PeerLeft))
    await asyncio.gather(ada.network.stop(), cyd.network.stop())
    cyd = await small.start("cyd", knows=["bob"])  # with an empty folder
    await cyd.inbox.until(lambda: ada.me in cyd.inbox.of(PeerLeft))
    (heard,) = [event for event in cyd.inbox.events if isinstance(event, PeerLeft)]
    assert heard.applied == 3


async def test_a_peer_with_another_address_is_called_there_and_the_other_links_stay(small):
    bob, cyd = await small.start("bob"), await small.start("cyd")
    ada = await small.start("ada", knows=["bob", "cyd"], listens=False)
    await ada.meets(bob, cyd)
    others, before = ada.network.hub.links.named("cyd"), ada.network.hub.links.named("bob")
    await bob.network.stop()
    bob = await small.start("bob")
    ada.network.meet(small.member("bob"))
    assert before.ended.is_set()
    await bob.meets(ada)
    assert ada.network.hub.links.named("cyd") is others
    ada.network.meet(small.member("bob"))  # as it is called already
    assert bob.me in ada.network.connected
    ada.network.meet(replace(small.member("bob"), fingerprint="0" * 64))
    assert ada.network.connected == [cyd.me]
    assert ada.network.hub.links.named("cyd") is others


async def test_what_is_asked_of_a_peer_whose_address_changes_breaks_off_and_ends_nothing_else(small):
    both, connections = asyncio.Semaphore(0), []

    async def is_silent(_, writer):
        connections.append(writer)
        both.release()

    async with await asyncio.start_server(is_silent, "127.0.0.1", 0) as server:
        small.reach("bob", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ada = await small.start("ada", knows=["bob"], listens=False)
        asking = asyncio.create_task(ada.network.newest("bob"))
        async with asyncio.timeout(60):
            await both.acquire()  # the link's connection, and that of what was asked
            await both.acquire()
        ada.network.meet(Member("bob", "127.0.0.1:1"))
        with pytest.raises(TransferError, match="another address"):
            await asking
        for connection in connections:
            connection.close()


async def test_a_notice_that_a_full_disk_has_no_room_for_counts_when_it_has(small, identity, monkeypatch):
    bob = await small.start("bob")
    full = [OSError(errno.ENOSPC, "no room")] * 2

    def written(path, data):
        if full:
            raise full.pop()
        write_private(path, data)

    monkeypatch.setattr("covey.node.peers.evicted.write_private", written)
    with pytest.raises(CoveyError):
        await small.evict(Incarnation("ada"), identity("root", "admin"), at="bob")
    assert bob.inbox.of(PeerEvicted) == []
    await bob.hears_evicted(Incarnation("ada"))  # nobody says it a second time


async def test_a_certificate_that_is_issued_again_counts_for_connections_from_then_on(small, identity):
    """Those to it, and its own: with the one that has ended it could have neither."""
    ended, fresh = identity("ada", days=0), identity("ada")
    shown = [ended]
    ada = await small.start("ada", newest=lambda: shown[0])
    bob = await small.start("bob", knows=["ada"])
    cyd = await small.start("cyd")
    assert "none" in await small.refusal(bob, "ada")
    calls = PeerCalls(small.member("cyd"), lambda: shown[0], ada.network.hub)
    try:
        with pytest.raises(CoveyError, match="or there is none"):
            await calls.link()
        shown[0] = fresh
        link = asyncio.ensure_future(calls.link())
        await asyncio.gather(bob.meets(ada), ada.meets(bob), cyd.meets(ada), ada.meets(cyd))
        link.cancel()
    finally:
        await calls.close()
