"""What stands before every method, with real servers and callers that hold what they get."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource

import grpc
import grpc.aio
import pytest

from covey.errors import IdentityError, Obstructed
from covey.wire.channels import channel_options, server_options
from covey.wire.listeners import connections as found
from covey.wire.listeners.call_limits import Allowance, Caller, CallLimits
from covey.wire.listeners.connections import Connections, end_surplus, place_of
from covey.wire.listeners.guard import Guard

ECHO, MANY, SUM, SESSION = (f"/covey.test/{name}" for name in ("Echo", "Many", "Sum", "Session"))
STATUS = grpc.StatusCode
EACH = 4


class Methods:
    """One of each kind; `held` keeps a session open."""

    def __init__(self):
        self.refuse, self.called = False, []

    def who(self, context):
        if self.refuse:
            raise IdentityError("nobody knows you")
        return Caller("anybody", "one")

    async def echo(self, request, context):
        self.called.append(context.peer())
        return request

    async def many(self, request, context):
        for _ in range(3):
            yield request

    async def sum(self, requests, context):
        return bytes([sum([message[0] async for message in requests])])

    async def session(self, requests, context):
        async for message in requests:
            yield message

    def handler(self):
        methods = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Session": grpc.stream_stream_rpc_method_handler(self.session),
        }
        return grpc.method_handlers_generic_handler("covey.test", methods)


@pytest.fixture
def methods():
    return Methods()


@pytest.fixture
async def serve(methods):
    """Starts a guarded server: `guard, address = await serve(...)`."""
    servers = []

    async def start(begin=(1000, 1000.0), **options):
        limits = CallLimits({"anybody": Allowance(EACH, 100, begin)})
        guard = Guard(methods.who, limits, Connections(), **options)
        server = grpc.aio.server(options=server_options(), interceptors=[guard])
        server.add_generic_rpc_handlers((methods.handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return guard, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(None)


@contextlib.asynccontextmanager
async def channel_to(address, dummy="one"):
    options = [*channel_options("x", dummy), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


async def status_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_every_kind_of_method_works_behind_it(serve):
    _, address = await serve()
    async with channel_to(address) as channel:
        assert await channel.unary_unary(ECHO)(b"a", timeout=20) == b"a"
        assert [reply async for reply in channel.unary_stream(MANY)(b"b", timeout=20)] == [b"b"] * 3
        assert await channel.stream_unary(SUM)(iter([b"\1", b"\2"]), timeout=20) == b"\3"
        assert await channel.stream_unary(SUM)(iter([]), timeout=20) == b"\0"
        assert [reply async for reply in channel.stream_stream(SESSION)(iter([b"c", b"d"]))] == [b"c", b"d"]
        assert await status_of(channel.unary_unary("/covey.test/None")(b"")) is STATUS.UNIMPLEMENTED
        assert await status_of(channel.stream_unary(ECHO)(iter([]), timeout=20)) is STATUS.ABORTED


async def test_a_call_of_which_only_the_headers_came_ends(serve, methods):
    _, address = await serve(first_message_s=0.2)
    async with channel_to(address) as channel:
        for method in (ECHO, MANY, SESSION):
            call = channel.stream_stream(method)()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is STATUS.DEADLINE_EXCEEDED
            assert "no message came" in str(caught.value.details())
    assert methods.called == []


async def test_held_calls_give_way_to_who_says_something(serve):
    _, address = await serve()
    async with channel_to(address) as holding, channel_to(address, "two") as channel:
        held = [asyncio.create_task(status_of(holding.stream_unary(ECHO)())) for _ in range(3 * EACH)]
        ended = itertools.islice(asyncio.as_completed(held), 2 * EACH)
        assert {await call for call in ended} == {STATUS.DEADLINE_EXCEEDED}
        assert await channel.unary_unary(ECHO)(b"a", timeout=20) == b"a"
        for call in held:
            call.cancel()
        await asyncio.wait(held)


async def test_more_calls_than_are_allowed_are_refused_and_counted_again_when_one_ends(serve):
    _, address = await serve()
    async with channel_to(address) as channel:
        sessions = [channel.stream_stream(SESSION)() for _ in range(EACH)]
        for session in sessions:
            await session.write(b"a")
            assert await session.read() == b"a"
        assert await status_of(channel.unary_unary(ECHO)(b"a", timeout=20)) is STATUS.RESOURCE_EXHAUSTED
        await sessions[0].done_writing()
        assert await sessions[0].read() is grpc.aio.EOF
        assert await channel.unary_unary(ECHO)(b"a", timeout=20) == b"a"


async def lost(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return caught.value.code()


async def test_who_is_ended_loses_calls_and_connections(serve, monkeypatch):
    monkeypatch.setattr(found, "FAREWELL_S", 0.05)
    guard, address = await serve()
    async with channel_to(address) as channel:
        session = channel.stream_stream(SESSION)()
        await session.write(b"a")
        assert await session.read() == b"a"
        guard.end(Caller("anybody", "another"))
        guard.end(Caller("anybody", "one"))
        assert await lost(session) is STATUS.UNAVAILABLE


async def test_who_may_not_call_at_all_is_told_why_and_loses_the_connection(serve, methods, monkeypatch):
    monkeypatch.setattr(found, "FAREWELL_S", 5.0)  # a busy machine needs longer to read it
    _, address = await serve()
    async with channel_to(address) as channel:
        await channel.unary_unary(ECHO)(b"a", timeout=20)
        session = channel.stream_stream(SESSION)()
        await session.write(b"a")
        assert await session.read() == b"a"
        methods.refuse = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ECHO)(b"a", timeout=20)
        assert (caught.value.code(), caught.value.details()) == (STATUS.PERMISSION_DENIED, "nobody knows you")
        assert await lost(session) is STATUS.UNAVAILABLE
        methods.refuse = False
        while True:  # the connection may be gone only just now, and with it a call that had begun
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.unary_unary(ECHO)(b"a", timeout=20)
                break
    assert len(set(methods.called)) == 2


async def test_who_goes_on_calling_when_refused_loses_the_connection(serve, monkeypatch):
    monkeypatch.setattr(found, "FAREWELL_S", 0.05)
    _, address = await serve(begin=(1, 0.0))
    async with channel_to(address) as channel:
        session = channel.stream_stream(SESSION)()
        await session.write(b"a")
        assert await session.read() == b"a"
        refusals = {await status_of(channel.unary_unary(ECHO)(b"", timeout=20)) for _ in range(250)}
        assert STATUS.RESOURCE_EXHAUSTED in refusals
        assert await lost(session) is STATUS.UNAVAILABLE


async def test_one_address_keeps_so_many_connections(serve):
    _, address = await serve()
    port = int(address.rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel_to(address, str(number))) for number in range(5)]
        sessions = [channel.stream_stream(SESSION)() for channel in channels[:EACH]]
        for session in sessions:
            await session.write(b"a")
            assert await session.read() == b"a"
        assert await status_of(channels[EACH].unary_unary(ECHO)(b"a", timeout=20)) is STATUS.RESOURCE_EXHAUSTED
        assert end_surplus({port: 5, port + 1: 0}) == 0
        assert end_surplus({port: 3}) == 2


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("ipv4:10.1.2.3:50000", ("10.1.2.3", 50000)),
        ("ipv6:%5B2001:db8::6%5D:50000", ("2001:db8::6", 50000)),
        ("ipv6:%5B::ffff:10.1.2.3%5D:7", ("10.1.2.3", 7)),
        ("unix:/run/covey.sock", None),
        ("ipv4:what:7", None),
    ],
)
def test_where_a_peer_is(peer, place):
    assert place_of(peer) == place


def test_looking_for_connections_closes_no_file_of_this_process():
    with open(os.devnull) as file:
        before = sorted(os.listdir("/proc/self/fd"))
        assert found.end_connections({("192.0.2.1", 1)}) == 0
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert not file.closed


@pytest.mark.parametrize(("allowed", "refused"), [(20, True), (63, True), (64, False), (8192, False)])
def test_a_daemon_that_may_have_too_few_open_files_says_so(monkeypatch, allowed, refused):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (min(allowed, 30), allowed))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: None)
    if refused:
        with pytest.raises(Obstructed, match=f"only {allowed} files may be open at once.*raise LimitNOFILE"):
            found.allow_many_files()
    else:
        assert found.allow_files() == allowed
