"""The floor under an exchange between peers: bare grpc.aio programs that move the same bytes along the same edges.

N processes, each a server and a client of the others: mutual TLS, raw chunks of 1 MiB, no tensors. In a round each
process streams S bytes to each of its targets; it ends when all have all. The clock is the parent's. With `--syncs` a
process writes and syncs its body once before it sends, and what comes before it answers: `durability = "power"`.

    python -m benchmarks.peer_streams --nodes 4 --bytes 100000000 --rounds 5 --topology exponential
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import grpc
import grpc.aio

from benchmarks.certificates import SERVER_NAME, channel_credentials, server_credentials, write_certificates
from benchmarks.floor import CHUNK_BYTES, chunk_sizes
from covey.gossip.graph import Graph
from covey.gossip.topologies.contract import TOPOLOGIES, Swarm

METHOD = "/covey.floor.Peer/Push"
WARM_UP_ROUNDS = 1
SEED = 1
"""Of topologies that draw."""
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Streams:
    """What bare streams took.

    Attributes:
        times_s: Seconds of each round.
        cpu_s: Processor seconds a round, of all processes.
        models: How many bodies went in all these rounds.
    """

    times_s: list[float]
    cpu_s: float
    models: int


def graphs_of(topology: str, nodes: int, rounds: int) -> list[Graph]:
    """Who sends to whom in each round, as a run of this topology has it."""
    plugin, swarm = TOPOLOGIES.make(topology, {}), Swarm(tuple(f"n{index}" for index in range(nodes)), SEED, {}, {})
    return [plugin.graph(step, swarm) for step in range(rounds)]


class Peer:
    """One process: takes what comes, and sends when it is told to."""

    def __init__(self, folder: Path, total_bytes: int, syncs: bool) -> None:
        self._folder, self._total_bytes, self._syncs = folder, total_bytes, syncs
        self._payload, self._numbers = bytes(CHUNK_BYTES), itertools.count()

    async def take(self, chunks: AsyncIterator[bytes], _context: Any) -> bytes:
        """One body that comes."""
        with self._written() as file:
            async for chunk in chunks:
                if file is not None:
                    file.write(chunk)
        return b""

    async def push(self, channel: grpc.aio.Channel) -> None:
        """Bring one body over; ends when it is there."""
        call: Any = channel.stream_unary(METHOD)()
        for size in chunk_sizes(self._total_bytes):
            await call.write(self._payload if size == CHUNK_BYTES else self._payload[:size])
        await call.done_writing()
        await call

    def make_body(self) -> None:
        """What is to be durable before anything is sent."""
        with self._written() as file:
            for size in chunk_sizes(self._total_bytes) if file is not None else ():
                file.write(self._payload[:size])

    @contextlib.contextmanager
    def _written(self) -> Iterator[Any]:
        if not self._syncs:
            yield None
            return
        path = self._folder / f"{os.getpid()}-{next(self._numbers)}"
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


async def take_part(folder: Path, total_bytes: int, syncs: bool) -> None:
    """A process: prints its port, reads everybody's, then the targets of each round; prints when they have all."""
    peer, server = Peer(folder, total_bytes, syncs), grpc.aio.server()
    handler: Any = grpc.stream_unary_rpc_method_handler(peer.take)
    service, method = METHOD[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(folder))
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    ports = json.loads(await asyncio.to_thread(sys.stdin.readline))
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    credentials = channel_credentials(folder)
    channels = [grpc.aio.secure_channel(f"127.0.0.1:{each}", credentials, options) for each in ports]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    print(json.dumps({"cpu_s": time.process_time()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await asyncio.to_thread(peer.make_body)
        await asyncio.gather(*(peer.push(channels[target]) for target in json.loads(line)))
        print(json.dumps({"cpu_s": time.process_time()}), flush=True)
    for channel in channels:
        await channel.close()
    await server.stop(grace=1)


@contextlib.contextmanager
def _process(arguments: Sequence[object]) -> Iterator[Process]:
    """A process of this program that is gone afterwards, whatever happened."""
    command = [sys.executable, "-m", "benchmarks.peer_streams", "--role", "peer", *map(str, arguments)]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _said(process: Process) -> dict[str, Any]:
    """A process's next line."""
    line = _pipe(process.stdout).readline()
    if not line:
        raise RuntimeError(f"a process of the floor ended early (exit code {process.wait()}); its error is above")
    message: dict[str, Any] = json.loads(line)
    return message


def _tell(process: Process, value: object) -> None:
    pipe = _pipe(process.stdin)
    pipe.write(json.dumps(value) + "\n")
    pipe.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the process is not piped")
    return pipe


def run_streams(graphs: Sequence[Graph], total_bytes: int, *, syncs: bool = False, root: Path | None = None) -> Streams:
    """Move the bytes, round by round, after a first one that does not count.

    Args:
        graphs: Who sends to whom, for each round.
        total_bytes: Of one body.
        syncs: Whether bodies are synced, as for `durability = "power"`.
        root: Where bodies are written; None: a temporary folder.
    """
    if not graphs or total_bytes < 1:
        raise ValueError("the floor needs at least one round and one byte")
    nodes = len(graphs[0])
    with tempfile.TemporaryDirectory(prefix="covey-streams-", dir=root) as folder, contextlib.ExitStack() as stack:
        write_certificates(Path(folder))
        work = ["--folder", folder, "--bytes", total_bytes, *(["--syncs"] if syncs else [])]
        peers = [stack.enter_context(_process(work)) for _ in range(nodes)]
        ports = [_said(peer)["port"] for peer in peers]
        for peer in peers:
            _tell(peer, ports)
        for peer in peers:
            _said(peer)
        times_s, used_s = [], [0.0]
        for graph in [*graphs[:WARM_UP_ROUNDS], *graphs]:
            began = time.perf_counter()
            for peer, targets in zip(peers, graph, strict=True):
                _tell(peer, targets)
            used_s.append(sum(_said(peer)["cpu_s"] for peer in peers))
            times_s.append(time.perf_counter() - began)
    models = sum(len(targets) for graph in graphs for targets in graph)
    return Streams(times_s[WARM_UP_ROUNDS:], (used_s[-1] - used_s[WARM_UP_ROUNDS]) / len(graphs), models)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_streams", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=100_000_000, help="of a body")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--topology", default="exponential")
    parser.add_argument("--syncs", action="store_true", help="bodies are written and synced")
    parser.add_argument("--role", choices=("peer",), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.role:
        asyncio.run(take_part(given.folder, given.bytes, given.syncs))
        return 0
    graphs = graphs_of(given.topology, given.nodes, given.rounds)
    streams = run_streams(graphs, given.bytes, syncs=given.syncs)
    median_s = statistics.median(streams.times_s)
    print(
        json.dumps({"median_s": median_s, "times_s": streams.times_s, "cpu_s": streams.cpu_s, "models": streams.models})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
