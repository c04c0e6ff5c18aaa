from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from benchmarks import floor
from benchmarks.certificates import SERVER_NAME, server_credentials, write_certificates
from covey.testing.launch.processes import children_of


@pytest.mark.parametrize(("total", "sizes"), [(1, [1]), (1 << 20, [1 << 20]), ((1 << 20) + 3, [1 << 20, 3])])
def test_chunks_hold_every_byte(total, sizes):
    assert floor.chunk_sizes(total) == sizes


@pytest.mark.parametrize("total_bytes", [7, (2 << 20) + 5])
def test_rounds_are_timed_and_the_processes_are_gone(total_bytes):
    before = set(children_of(os.getpid())[os.getpid()])  # other tests' servers
    found = floor.run_floor(nodes=2, total_bytes=total_bytes, rounds=3)
    times = found.times_s
    assert found.cpu_s > 0
    assert len(times) == 3
    assert all(seconds > 0 for seconds in times)
    assert set(children_of(os.getpid())[os.getpid()]) <= before


def test_json_is_one_line(capsys):
    assert floor.main(["--nodes", "1", "--bytes", "1000", "--rounds", "2", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["floor_median_s"] > 0
    assert (found["nodes"], found["bytes"], len(found["times_s"])) == (1, 1000, 2)


def test_nothing_to_move_is_refused():
    with pytest.raises(ValueError, match="at least one node"):
        floor.run_floor(nodes=0, total_bytes=1, rounds=1)


def test_a_server_that_fails_fails_the_floor(tmp_path, capfd):
    with floor._process("server", ["--folder", tmp_path]) as server, pytest.raises(RuntimeError, match="ended early"):
        floor._read_line(server)
    assert "authority.crt" in capfd.readouterr().err


def test_a_client_that_fails_fails_the_floor(tmp_path):
    write_certificates(tmp_path)
    with (
        floor._process("server", ["--folder", tmp_path]) as server,
        floor._process("client", ["--folder", tmp_path / "missing", "--port", 1]) as client,
    ):
        floor._read_line(server)
        with pytest.raises(RuntimeError, match=f"client process {client.pid}"):
            floor._read_line(server, [client])


async def nothing() -> AsyncIterator[bytes]:
    """A stream that ends at once."""
    for chunk in ():
        yield chunk


async def test_a_client_that_leaves_in_the_middle_ends_the_server(tmp_path):
    write_certificates(tmp_path)
    served = floor.FloorServer(nodes=1, total_bytes=10, rounds=1)

    class Leaves:
        async def write(self, chunk: bytes) -> None:
            assert chunk == bytes(10)

        async def read(self) -> object:
            return grpc.aio.EOF

    with pytest.raises(ConnectionError, match="middle of a round"):
        await served.exchange(nothing(), Leaves())
    assert served.done.is_set()
    assert isinstance(served.error, ConnectionError)


async def test_the_server_refuses_a_client_without_a_certificate(tmp_path):
    write_certificates(tmp_path)
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(tmp_path))
    await server.start()
    anonymous = grpc.ssl_channel_credentials((tmp_path / "authority.crt").read_bytes())
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", anonymous, options) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(floor.METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(ask(b""), 10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(None)
