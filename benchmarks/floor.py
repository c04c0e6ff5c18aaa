"""The floor under a round: a bare grpc.aio program that moves the same bytes between as many processes.

One server process and N client processes, mutual TLS, raw chunks of 1 MiB, no disk, no tensors. In a round
the server streams S bytes to every client, and every client streams S bytes back; it ends when all are
through. The clock is the server's.

    python -m benchmarks.floor --nodes 4 --bytes 100000000 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.certificates import SERVER_NAME, channel_credentials, server_credentials, write_certificates

CHUNK_BYTES = 1 << 20
Process = subprocess.Popen[str]
METHOD = "/covey.floor.Floor/Exchange"
WARM_UP_ROUNDS = 1
"""Left out of the result, as the first round of the daemons is."""


def chunk_sizes(total_bytes: int) -> list[int]:
    """The chunks in which so many bytes travel: 1 MiB each, the last one shorter."""
    whole, rest = divmod(total_bytes, CHUNK_BYTES)
    return [CHUNK_BYTES] * whole + [rest] * (rest > 0)


class FloorServer:
    """Serves one stream a client, and keeps the rounds in step."""

    def __init__(self, nodes: int, total_bytes: int, rounds: int) -> None:
        self._total_bytes = total_bytes
        self._payload = bytes(CHUNK_BYTES)
        self._rounds = rounds
        self._nodes = self._left = nodes
        self._barrier = asyncio.Barrier(nodes)
        self._marks: list[float] = []
        self.done = asyncio.Event()
        self.error: BaseException | None = None

    @property
    def times_s(self) -> list[float]:
        """Seconds of each round that is over."""
        return [end - start for start, end in itertools.pairwise(self._marks)]

    async def exchange(self, _request: AsyncIterator[bytes], context: Any) -> None:
        """One client's stream: every round all chunks out, then as many bytes in."""
        try:
            await self._in_step()
            for _ in range(self._rounds):
                await send_chunks(context, self._payload, self._total_bytes)
                await receive_bytes(context, self._total_bytes)
                await self._in_step()
        except BaseException as error:
            self.error = self.error or error
            self.done.set()
            raise
        self._left -= 1
        if self._left == 0:
            self.done.set()

    async def _in_step(self) -> None:
        """Wait for the others; the last one to come notes the time."""
        if await self._barrier.wait() == self._nodes - 1:
            self._marks.append(time.perf_counter())


async def send_chunks(stream: Any, payload: bytes, total_bytes: int) -> None:
    """Write so many bytes in chunks."""
    for size in chunk_sizes(total_bytes):
        await stream.write(payload if size == len(payload) else payload[:size])


async def receive_bytes(stream: Any, total_bytes: int) -> None:
    """Read so many bytes and forget them."""
    while total_bytes > 0:
        chunk = await stream.read()
        if not isinstance(chunk, bytes):
            raise ConnectionError("the other side ended the stream in the middle of a round")
        total_bytes -= len(chunk)


async def serve(folder: Path, nodes: int, total_bytes: int, rounds: int) -> None:
    """The server process: prints its port, serves every round, prints the rounds' seconds (JSON lines)."""
    floor = FloorServer(nodes, total_bytes, rounds)
    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(floor.exchange)
    service, method = METHOD[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(folder))
    await server.start()
    began_cpu_s = time.process_time()
    print(json.dumps({"port": port}), flush=True)
    await floor.done.wait()
    await server.stop(grace=5 if floor.error is None else 0)
    if floor.error is not None:
        raise floor.error
    print(json.dumps({"times_s": floor.times_s, "cpu_s": time.process_time() - began_cpu_s}), flush=True)


async def take_part(folder: Path, port: int, total_bytes: int, rounds: int) -> None:
    """A client process: takes every round's bytes and sends as many back."""
    payload, began_cpu_s = bytes(CHUNK_BYTES), time.process_time()
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials(folder), options) as channel:
        call: Any = channel.stream_stream(METHOD)()
        for _ in range(rounds):
            await receive_bytes(call, total_bytes)
            await send_chunks(call, payload, total_bytes)
        await call.done_writing()
        await call.read()
    print(json.dumps({"cpu_s": time.process_time() - began_cpu_s}), flush=True)


@contextlib.contextmanager
def _process(role: str, arguments: Sequence[object]) -> Iterator[Process]:
    """A process of this program that is gone afterwards, whatever happened."""
    command = [sys.executable, "-m", "benchmarks.floor", "--role", role, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _read_line(server: Process, clients: Sequence[Process] = ()) -> dict[str, Any]:
    """The server's next line; an error as soon as one of the processes failed."""
    stdout = server.stdout
    if stdout is None:
        raise RuntimeError("the server's output is not piped")
    while not select.select([stdout], [], [], 0.5)[0]:
        failed = [client.pid for client in clients if client.poll()]
        if failed:
            raise RuntimeError(f"client process {failed[0]} of the floor failed; its error is above")
    line = stdout.readline()
    if not line:
        raise RuntimeError(f"the floor's server ended early (exit code {server.wait()}); its error is above")
    times: dict[str, Any] = json.loads(line)
    return times


@dataclass(frozen=True)
class Floor:
    """What the floor took.

    Attributes:
        times_s: Seconds of each round.
        cpu_s: Processor seconds a round, of all processes; the making of connections is a part of them.
    """

    times_s: list[float]
    cpu_s: float


def run_floor(nodes: int, total_bytes: int, rounds: int) -> Floor:
    """Run `rounds` rounds, after a first one whose time is left out.

    Args:
        nodes: Client processes.
        total_bytes: What each client receives, and sends, in a round.
        rounds: Rounds that count.
    """
    if nodes < 1 or total_bytes < 1 or rounds < 1:
        raise ValueError("the floor needs at least one node, one byte and one round")
    everything = rounds + WARM_UP_ROUNDS
    with tempfile.TemporaryDirectory(prefix="covey-floor-") as folder, contextlib.ExitStack() as stack:
        write_certificates(Path(folder))
        work = ["--folder", folder, "--nodes", nodes, "--bytes", total_bytes, "--rounds", everything]
        server = stack.enter_context(_process("server", work))
        port = _read_line(server)["port"]
        clients = [stack.enter_context(_process("client", [*work, "--port", port])) for _ in range(nodes)]
        last = _read_line(server, clients)
        cpu_s = last["cpu_s"] + sum(_read_line(client)["cpu_s"] for client in clients)
        for client in clients:
            client.wait()
    return Floor(last["times_s"][WARM_UP_ROUNDS:], cpu_s / everything)


def _report(floor: Floor, nodes: int, total_bytes: int, as_json: bool) -> None:
    times_s, median = floor.times_s, statistics.median(floor.times_s)
    if as_json:
        size = {"nodes": nodes, "bytes": total_bytes}
        print(json.dumps({"floor_median_s": median, "times_s": times_s, "cpu_s": floor.cpu_s, **size}))
        return
    rate = 2 * nodes * total_bytes / median / 1e6
    spread = f"min {min(times_s):.4f}, max {max(times_s):.4f}"
    print(f"floor: median {median:.4f} s ({spread}), {rate:,.0f} MB/s at the server, CPU {floor.cpu_s:.3f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=100_000_000, help="each way, for each client, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("server", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.role == "server":
        asyncio.run(serve(given.folder, given.nodes, given.bytes, given.rounds))
    elif given.role == "client":
        asyncio.run(take_part(given.folder, given.port, given.bytes, given.rounds))
    else:
        _report(run_floor(given.nodes, given.bytes, given.rounds), given.nodes, given.bytes, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
