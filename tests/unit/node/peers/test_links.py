"""Which of two links stays, and whom a node calls."""

import asyncio
from typing import Any

import pytest

from covey.errors import Conflict, NotReady
from covey.gossip.ledger import Incarnation
from covey.node.peers.dialer import PATIENCE_S, Dialer, longest_s, patience_s
from covey.node.peers.links import QUEUE_MESSAGES, Link, Links
from covey.node.peers.roster import Member
from covey.protos import peer_pb2 as pb

BOB = Incarnation("bob")


@pytest.fixture
def lost():
    return []


@pytest.fixture
def links(lost):
    return Links(lost.append)


def test_the_newer_link_of_one_caller_counts(links, lost):
    first, second = Link(BOB, "bob"), Link(BOB, "bob")
    links.open(first)
    links.open(second)
    assert links.of(BOB) is second
    assert first.ended.is_set()
    assert lost == [first]
    links.forget(first)
    assert links.of(BOB) is second
    links.forget(second)
    assert links.of(BOB) is None
    assert lost == [first, second]


@pytest.mark.parametrize("order", [("ada", "bob"), ("bob", "ada")])
def test_where_both_call_at_once_both_sides_keep_the_same_link(links, order):
    for caller in order:
        try:
            links.open(Link(BOB, caller))
        except Conflict:
            assert (caller, order[0]) == ("bob", "ada")
    assert links.of(BOB).caller == "ada"


def test_a_link_that_has_ended_is_in_nobodys_way(links):
    first = Link(BOB, "ada")
    links.open(first)
    first.close()
    assert links.named("bob") is None
    links.open(Link(BOB, "bob"))
    assert links.of(BOB).caller == "bob"


def test_a_link_of_another_incarnation_is_not_the_peers(links):
    links.open(Link(Incarnation("bob", 2), "bob"))
    assert links.of(BOB) is None
    assert links.named("bob") is not None


def test_a_peer_that_takes_nothing_loses_its_link_and_hears_why_if_there_is_room():
    link = Link(BOB, "bob")
    for _ in range(QUEUE_MESSAGES + 1):
        link.send(pb.PeerMessage(left=pb.PeerHasLeft()))
    assert link.ended.is_set()
    link.close("twice", "does no harm")
    kinds = [message and message.WhichOneof("kind") for message in (link.outbox.get_nowait() for _ in range(255))]
    assert kinds[-1] is None
    assert link.outbox.empty()


@pytest.mark.parametrize(
    ("me", "other", "waits_s"),
    [
        (Member("ada", "a:1"), Member("bob", "b:1"), 0.0),
        (Member("bob", "b:1"), Member("ada", "a:1"), PATIENCE_S),
        (Member("bob"), Member("ada", "a:1"), 0.0),
        (Member("ada", "a:1"), Member("bob"), None),
        (Member("ada"), Member("bob"), None),
    ],
)
def test_the_lesser_name_calls_and_whoever_cannot_be_called_calls(me, other, waits_s):
    assert patience_s(me, other) == waits_s


def test_who_is_evicted_for_good_is_called_rarely():
    assert [longest_s(failures, is_gone=False) for failures in (0, 1, 9, 32)] == [0.1, 0.2, 10, 10]
    assert longest_s(32, is_gone=True) == 300


async def test_who_calls_again_and_again_ends_though_a_call_made_another_error_of_that(small):
    """As gRPC does with a call that fails in the moment in which it is cancelled: its peer is just gone."""
    ada = await small.start("ada")

    class Calls:
        member, tries, begun = Member("bob", "127.0.0.1:1"), 0, asyncio.Event()

        async def link(self):
            self.tries += 1
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise NotReady("the connection broke, or there is none") from None

    calls: Any = Calls()
    dialing = asyncio.create_task(Dialer(calls, ada.network.hub, 0.0).run())
    await calls.begun.wait()
    dialing.cancel()
    await asyncio.wait({dialing}, timeout=60)
    assert dialing.cancelled()
    assert calls.tries == 1
