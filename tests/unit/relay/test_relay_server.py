"""Who may wait at a relay, who gets through, and what strangers cost."""

import asyncio
import ssl

import pytest

from covey.relay import server as relay_server
from covey.relay.server import MAX_WAITING
from covey.wire.registration import CALLED, CHALLENGE_BYTES, GREETING, WELCOME, proof

WAIT_S = 20.0


async def registered(relay, identity, *, challenge=None):
    reader, writer = await relay.open()
    writer.write(GREETING)
    said = await reader.readexactly(CHALLENGE_BYTES)
    writer.write(proof(identity, challenge or said))
    return reader, writer


async def is_closed(reader):
    async with asyncio.timeout(WAIT_S):
        return await reader.read(1) == b""


def hello(name):
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_a_caller_is_passed_on_byte_for_byte_to_the_node_that_it_names(relay, identity):
    node_reader, node_writer = await registered(relay, identity("ada"))
    assert await node_reader.readexactly(1) == WELCOME
    reader, writer = await relay.open()
    first = hello("ada.node.covey")
    writer.write(first[:20])
    await writer.drain()
    writer.write(first[20:] + b"more")
    assert await node_reader.readexactly(1) == CALLED
    assert await node_reader.readexactly(len(first) + 4) == first + b"more"
    node_writer.write(b"answer")
    assert await reader.readexactly(6) == b"answer"
    writer.close()
    assert await is_closed(node_reader)


async def test_a_caller_waits_for_a_node_that_is_about_to_come(relay, identity):
    reader, writer = await relay.open()
    writer.write(hello("ada.node.covey"))
    node_reader, _ = await registered(relay, identity("ada"))
    assert await node_reader.readexactly(2) == WELCOME + CALLED
    assert not reader.at_eof()


async def test_nobody_waits_here_without_a_proof(relay, identity, foreign):
    for reader, _ in (
        await registered(relay, identity("ada", by=foreign)),
        await registered(relay, identity("ada"), challenge=bytes(CHALLENGE_BYTES)),
        await registered(relay, identity("root", "admin")),
    ):
        assert await is_closed(reader)
    assert relay.server.waiting("ada") == 0


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", GREETING[:-1] + b"x", b"\x16\x03\x01" + bytes(20)])
async def test_strangers_are_hung_up_on(relay, data, monkeypatch):
    monkeypatch.setattr(relay_server, "FIRST_S", 0.2)
    reader, writer = await relay.open()
    writer.write(data)
    assert await is_closed(reader)


async def test_a_caller_of_another_server_or_of_a_node_that_never_comes_is_hung_up_on(relay, monkeypatch):
    monkeypatch.setattr(relay_server, "WAIT_S", 0.1)
    for name in ("coordinator.covey", "example.org", "eve.node.covey"):
        reader, writer = await relay.open()
        writer.write(hello(name))
        assert await is_closed(reader)


async def test_a_node_keeps_so_many_connections_and_the_oldest_goes(relay, identity):
    ada = identity("ada")
    waiting = [await registered(relay, ada) for _ in range(MAX_WAITING + 3)]
    for reader, _ in waiting:
        assert await reader.readexactly(1) == WELCOME
    for reader, _ in waiting[:3]:
        assert await is_closed(reader)
    assert relay.server.waiting("ada") == MAX_WAITING


async def test_a_connection_that_went_away_is_given_to_nobody(relay, identity):
    reader, writer = await registered(relay, identity("ada"))
    assert await reader.readexactly(1) == WELCOME
    writer.close()
    late, caller = await registered(relay, identity("ada")), await relay.open()
    assert await late[0].readexactly(1) == WELCOME
    caller[1].write(hello("ada.node.covey"))
    assert await late[0].readexactly(1) == CALLED


async def test_who_opens_too_many_connections_is_hung_up_on(relay):
    readers = [(await relay.open())[0] for _ in range(260)]
    async with asyncio.timeout(WAIT_S):
        assert await readers[-1].read(1) == b""
