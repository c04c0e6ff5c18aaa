"""Seconds that hivemind takes to average a model among peers on loopback, to stand beside Covey's.

    python benchmarks/measuring/hivemind_peers.py --peers 4 --parameters 25000000
    python -m benchmarks.peer_streams --nodes 4 --bytes 25000000 --topology complete   # twice that: bare streams
    python -m benchmarks.gossip --nodes 4 --only mean complete                         # Covey's

Run by an interpreter that has hivemind (1.1.12), which Covey does not need: it imports nothing of this package. Prints
a line of JSON: of each step, after one that does not count, seconds from the first peer's call to the last one's
return, and processor seconds of all processes, the daemons that hivemind starts included. All have the mean, or it
ends with an error. The second command moves half of what peers of hivemind send each other: each has the means of its
part of all models, and gives them back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0


def cpu_seconds() -> float:
    """Processor seconds of all processes of this session so far."""
    ticks, session = 0, os.getsid(0)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def take_part(pipe: Connection, index: int, peers: int, parameters: int) -> None:
    """A peer: gets the others' addresses, says its own; averages whenever it is told to, and says what it has then."""
    import hivemind  # type: ignore[import-not-found]
    import torch

    torch.set_num_threads(1)
    dht = hivemind.DHT(initial_peers=pipe.recv(), host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    averager = hivemind.DecentralizedAverager(
        [torch.full((parameters,), float(index))],
        dht,
        prefix="covey",
        target_group_size=peers,
        min_group_size=peers,
        min_matchmaking_time=5.0,
        start=True,
    )
    pipe.send([str(address) for address in dht.get_visible_maddrs()])
    while pipe.recv():
        done = averager.step(timeout=PATIENCE_S)
        with averager.get_tensors() as (mean,):
            pipe.send((done is not None, float(mean[0]), float(mean[-1])))
            mean.fill_(float(index))
    averager.shutdown()
    dht.shutdown()


def measure(peers: int, parameters: int, steps: int) -> dict[str, Any]:
    """Seconds of each step; raises where a step did not come to the mean."""
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    addresses: list[str] = []
    for index in range(peers):
        mine, other = context.Pipe()
        context.Process(target=take_part, args=(other, index, peers, parameters)).start()
        mine.send(addresses)
        addresses = [*addresses, *mine.recv()]
        pipes.append(mine)
    times_s: list[float] = []
    used_s: list[float] = []
    expected = (True, (peers - 1) / 2, (peers - 1) / 2)
    for _ in range(steps + 1):
        began, used = time.perf_counter(), cpu_seconds()
        for pipe in pipes:
            pipe.send(True)
        answers = [pipe.recv() for pipe in pipes]
        times_s.append(time.perf_counter() - began)
        used_s.append(cpu_seconds() - used)
        if any(each != expected for each in answers):
            raise SystemExit(f"not the mean: {answers}")
        time.sleep(1.0)
    for pipe in pipes:
        pipe.send(False)
    return {"times_s": times_s[1:], "cpu_s": used_s[1:]}


if __name__ == "__main__":
    if os.getsid(0) != os.getpid():
        os.setsid()
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=25_000_000)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.peers, given.parameters, given.steps)))
