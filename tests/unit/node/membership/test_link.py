"""The session over real gRPC: plain values on this side, opened again after a loss, ended for good in words."""

import asyncio
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from covey import messages as msg
from covey.errors import IdentityError
from covey.node.membership.link import CoordinatorLink, Ended
from covey.protos import coordinator_pb2 as pb
from covey.testing.relay import Relay
from covey.wire.identities.authority import Authority
from tests.unit.node.served import END, WELCOME

NEWER = msg.WIRE + 1
HELLO = msg.Hello("1.0", ("digits",), "cpu")


class Session:
    """A link, and what came over it."""

    def __init__(self, identity, address):
        self.heard, self.losses = asyncio.Queue(), 0
        self.link = CoordinatorLink(
            identity, address, hello=lambda: HELLO, on_message=self.heard.put_nowait, on_lost=self.lost
        )

    def lost(self):
        self.losses += 1

    async def next(self):
        return await asyncio.wait_for(self.heard.get(), 20)


@pytest.fixture
async def open_link(served, identity):
    opened = []

    def open_link(who=None):
        session = Session(who or identity("n0"), served.address)
        opened.append((session, asyncio.create_task(session.link.run())))
        return opened[-1]

    yield open_link
    for session, work in opened:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await session.link.close()


async def ended(work):
    with pytest.raises(Ended) as caught:
        await asyncio.wait_for(work, 20)
    return str(caught.value)


async def test_both_sides_hear_plain_values(served, open_link):
    receipt = msg.Receipt("u", b"text", b"signature")
    served.scripts = [[WELCOME, pb.CoordinatorMessage(heartbeat=pb.Heartbeat()), receipt]]
    session, _ = open_link()
    assert [await session.next(), await session.next()] == [WELCOME, receipt]
    assert session.link.up
    await session.link.connected()
    session.link.send(msg.DownloadAsk("d"))
    await served.hears(2)
    assert served.heard == [HELLO, msg.DownloadAsk("d")]


async def test_what_is_sent_without_a_session_is_dropped(served, open_link):
    session, _ = open_link()
    assert not session.link.up
    session.link.send(msg.DownloadAsk("dropped"))
    await session.next()
    assert msg.DownloadAsk("dropped") not in served.heard


async def test_a_lost_session_is_opened_again(served, open_link):
    served.scripts = [[WELCOME, END], [WELCOME, END]]
    session, _ = open_link()
    for _ in range(3):
        assert await session.next() == WELCOME
    assert session.losses == 2
    assert served.sessions == 3


async def test_a_message_that_cannot_be_read_is_passed_over(served, open_link):
    damaged = pb.CoordinatorMessage(assignment=pb.Assignment(run="r", spec=b"\xff"))
    served.scripts = [[WELCOME, damaged, msg.DownloadGrant("d")]]
    session, _ = open_link()
    assert [await session.next(), await session.next()] == [WELCOME, msg.DownloadGrant("d")]


@pytest.mark.parametrize("code", ["evicted", "replaced"])
async def test_some_goodbyes_are_for_good(served, open_link, code):
    served.scripts = [[WELCOME, msg.Goodbye(code, "because")]]
    _, work = open_link()
    assert await ended(work) == f"{code}: because"
    assert served.sessions == 1


async def test_after_other_goodbyes_the_node_comes_back(served, open_link):
    goodbye = msg.Goodbye("stopping", "restart")
    served.scripts = [[WELCOME, goodbye, END]]
    session, _ = open_link()
    assert [await session.next() for _ in range(3)] == [WELCOME, goodbye, WELCOME]


@pytest.mark.parametrize(
    ("wire", "said", "older"),
    [
        (0, "version 1", "coordinator"),
        (1, "version 1", "coordinator"),
        (msg.WIRE + 1, f"version {msg.WIRE + 1}", "node"),
    ],
)
async def test_a_coordinator_of_another_version_ends_the_node_in_words(served, open_link, wire, said, older):
    served.scripts = [[replace(WELCOME, wire=wire)]]
    session, work = open_link()
    text = await ended(work)
    assert f"speaks version {msg.WIRE} of the messages" in text
    assert f"(Covey 9.9) {said}: upgrade the {older}" in text
    assert session.heard.empty()
    assert not session.link.up


async def test_a_node_whose_certificate_is_of_no_use_says_so(open_link, identity, tmp_path):
    theirs = identity("n1", by=Authority.open(tmp_path / "theirs"))
    _, work = open_link(identity("n0", certificate=theirs.certificate_pem))
    with pytest.raises(IdentityError, match="not issued by this federation's authority"):
        await asyncio.wait_for(work, 20)


YEARS_9_S = 9 * 365 * 86400.0


@pytest.fixture
def clock(monkeypatch):
    """Sets this computer's clock, forward or back by so many seconds."""
    right = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: right() + seconds)


@pytest.mark.parametrize(
    ("seconds", "seems"), [(YEARS_9_S, "'n0' expired at"), (-YEARS_9_S, "'n0' is not valid before")]
)
async def test_a_certificate_that_only_looks_expired_since_the_clock_was_set_ends_nothing(
    served, identity, clock, seconds, seems
):
    async with Relay(served.address) as relay:
        relay.partition()
        session = Session(identity("n0"), relay.address)
        clock(seconds)
        with capture_logs() as said:
            work = asyncio.create_task(session.link.run())
            async with asyncio.timeout(20):
                while not any(line["event"].startswith("cannot connect") for line in said):
                    await asyncio.wait([work], timeout=0.01)
                    assert not work.done(), "it gave up"
        reasons = [line["reason"] for line in said if line["event"].startswith("cannot connect")]
        assert seems in reasons[0]
        assert "this machine's clock was set since this program started; set it right" in reasons[0]
        relay.heal()
        assert await session.next() == WELCOME
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await session.link.close()


async def test_a_certificate_that_had_expired_when_the_node_started_ends_it(served, open_link, clock, identity):
    clock(YEARS_9_S)
    who = identity("n0")
    async with Relay(served.address) as relay:
        relay.partition()
        session = Session(who, relay.address)
        with pytest.raises(IdentityError, match=r"'n0' expired at .*; join again with a new token"):
            await asyncio.wait_for(session.link.run(), 20)
        await session.link.close()
