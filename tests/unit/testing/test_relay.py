import asyncio
import socket
import threading

import pytest

from covey.testing.relay import Relay, RelayThread

BIG = bytes(range(256)) * 4096


@pytest.fixture
async def echo():
    """A server that sends back what it gets; its address."""

    async def serve(reader, writer):
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
async def relay(echo):
    async with Relay(echo) as relay:
        yield relay


async def connect(address):
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def first_byte(address):
    reader, writer = await connect(address)
    try:
        return await reader.readexactly(1)
    finally:
        writer.close()


async def exchange(address, data):
    """Send, end, and read to the end."""
    reader, writer = await connect(address)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()


async def test_everything_goes_through_and_ends_when_it_ends(relay):
    assert await exchange(relay.address, BIG) == BIG
    assert relay.bytes_carried("up") == relay.bytes_carried("down") == len(BIG)
    assert (relay.connections, relay.cuts) == (1, 0)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("after", [0, 1, 65_536, 700_001])
async def test_cut_at_a_byte_once(relay, direction, after):
    relay.cut_once(direction, after)
    with pytest.raises(ConnectionError):
        await exchange(relay.address, BIG)
    assert relay.cuts == 1
    assert relay.bytes_carried(direction) == after
    assert await exchange(relay.address, BIG) == BIG
    assert relay.cuts == 1


async def test_a_cut_counts_over_all_connections(relay):
    relay.cut_once("up", 250)
    assert await exchange(relay.address, bytes(100)) == bytes(100)
    assert await exchange(relay.address, bytes(100)) == bytes(100)
    with pytest.raises(ConnectionError):
        await exchange(relay.address, bytes(100))
    assert relay.bytes_carried("up") == 250


async def test_cut_every_connection(relay):
    relay.cut_each("up", 50)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await exchange(relay.address, bytes(100))
    relay.cut_each("up", None)
    assert await exchange(relay.address, bytes(100)) == bytes(100)
    assert relay.cuts == 3


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_stall_holds_everything_and_keeps_the_connection(relay, direction):
    reader, writer = await connect(relay.address)
    relay.stall(direction)
    writer.write(b"held")
    answer = asyncio.create_task(reader.readexactly(4))
    # However long one waits, what is held cannot arrive.
    done, _ = await asyncio.wait([answer], timeout=0.1)
    assert not done
    assert not reader.at_eof()
    relay.resume(direction)
    assert await answer == b"held"
    writer.close()


async def test_delay_and_throttle_take_their_time(relay):
    clock = asyncio.get_running_loop().time
    relay.delay("up", 0.05)
    started = clock()
    assert await exchange(relay.address, b"x") == b"x"
    assert clock() - started >= 0.05
    relay.delay("up", 0)
    relay.throttle("down", 1_000_000)
    started = clock()
    assert await exchange(relay.address, BIG[:100_000]) == BIG[:100_000]
    assert clock() - started >= 0.1


async def test_a_long_way_delays_and_does_not_slow_down(relay):
    clock = asyncio.get_running_loop().time
    for direction in ("up", "down"):
        relay.latency(direction, 0.1)
    started = clock()
    assert await exchange(relay.address, BIG[:500_000]) == BIG[:500_000]
    assert clock() - started >= 0.2
    assert relay.bytes_carried("up") == 500_000
    relay.partition()
    relay.heal()
    relay.cut_once("up", after_bytes=1000)
    with pytest.raises(ConnectionError):
        await exchange(relay.address, BIG[:500_000])
    assert relay.cuts == 1


async def test_partition_and_heal(relay):
    reader, writer = await connect(relay.address)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    relay.partition()
    with pytest.raises(ConnectionError):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await first_byte(relay.address)
    relay.heal()
    assert await exchange(relay.address, b"again") == b"again"
    assert relay.cuts == 0


async def test_counts_start_again(relay):
    relay.cut_once("up", 10)
    relay.reset_counts()
    assert await exchange(relay.address, bytes(20)) == bytes(20)
    assert relay.bytes_carried("up") == 20


async def test_a_target_that_is_away_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    async with Relay(free) as relay:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await first_byte(relay.address)


async def test_nothing_is_left_behind(echo):
    before = asyncio.all_tasks()
    async with Relay(echo) as relay:
        reader, writer = await connect(relay.address)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        relay.stall("up")
        writer.write(b"never")
        address = relay.address
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises(ConnectionError):
        await connect(address)
    server_side = {task for task in asyncio.all_tasks() - before if "serve" not in repr(task)}
    assert not server_side


def test_from_a_thread():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with RelayThread(f"{host}:{port}") as relay:
            relay.cut_once("up", 3)
            host, _, port = relay.address.rpartition(":")
            with socket.create_connection((host, int(port))) as client:
                far, _ = server.accept()
                with far:
                    client.sendall(b"hello")
                    with pytest.raises(ConnectionError):
                        client.recv(1)
            assert relay.cuts == 1
            assert relay.bytes_carried("up") == 3
            relay.reset_counts()
            assert (relay.cuts, relay.bytes_carried("up")) == (0, 0)
            relay.partition()
            relay.heal()
    assert not [thread for thread in threading.enumerate() if thread.name == "relay"]
