"""Rounds through a bad link, one that is far away and one that drops: how long they take, and what is sent twice.

    python -m benchmarks.links
    python -m benchmarks.links --parameters 5000000 --nodes 2 --rounds 3 --rtt-ms 100 --drop-every 20 --mb-per-s 2

All nodes reach their coordinator through a relay on loopback (`covey.testing.relay`). Bytes sent twice are what the
coordinator counted of a run (`bytes_received` and `bytes_sent` of `covey round list`) over the sizes of its files.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.measuring.federation import FLOAT_BYTES, Work
from benchmarks.rounds import console
from covey.testing.federation import Federation
from covey.testing.relay import Direction, RelayThread

DIRECTIONS: tuple[Direction, ...] = ("up", "down")


@dataclass(frozen=True)
class Link:
    """What is between the nodes and their coordinator."""

    name: str
    rtt_s: float = 0.0
    drop_every_s: float = 0.0
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class Passed:
    """What a run took: seconds a round (median), connections dropped, and megabytes (1e6) that went twice."""

    link: Link
    round_s: float
    drops: int
    twice_up_mb: float
    twice_down_mb: float


def measure(link: Link, nodes: int, parameters: int, rounds: int) -> Passed:
    """Run a federation through a link.

    Raises:
        FederationError: The run did not complete.
    """
    with tempfile.TemporaryDirectory(prefix="covey-links-") as name, Federation(Path(name), nodes) as federation:
        federation.start_coordinator()
        federation.join()
        with RelayThread(federation.coordinator_address) as relay:
            for direction in DIRECTIONS:
                relay.do(lambda r: r.latency(direction, link.rtt_s / 2))  # noqa: B023
                relay.do(lambda r: r.throttle(direction, link.bytes_per_s))  # noqa: B023
            for index in range(nodes):
                federation.start_node(index, options=["--server", relay.address])
            federation.wait_connected(nodes)
            run = federation.submit(Work(nodes=nodes, parameters=parameters, rounds=rounds).spec_toml)
            drops = _follow(federation, relay, run, link.drop_every_s)
        entries = federation.rounds(run)
    model = FLOAT_BYTES * parameters
    # The first model is made on each node; what is sent beside the files themselves is their headers.
    received = sum(entry["bytes_received"] for entry in entries) - rounds * nodes * model
    sent = sum(entry["bytes_sent"] for entry in entries) - (rounds - 1) * nodes * model
    commits = [entry["committed_at"] for entry in entries]
    median_s = statistics.median(later - one for one, later in itertools.pairwise(commits))
    return Passed(link, median_s, drops, max(0, received) / 1e6, max(0, sent) / 1e6)


def _follow(federation: Federation, relay: RelayThread, run: str, drop_every_s: float) -> int:
    """Wait for the end of a run; meanwhile drop every connection now and then. How often that was."""
    ended, drops = threading.Event(), 0

    def drop() -> None:
        nonlocal drops
        while drop_every_s and not ended.wait(drop_every_s):
            relay.partition()
            relay.heal()
            drops += 1

    dropping = threading.Thread(target=drop, name="drops")
    dropping.start()
    try:
        federation.wait(run, timeout_s=1800, poll_s=0.5)
    finally:
        ended.set()
        dropping.join()
    return drops


def table(found: Sequence[Passed], model_mb: float, nodes: int) -> Table:
    """The report for people."""
    title = f"{nodes} nodes, a model of {model_mb:,.0f} MB"
    shown = Table("link", "round", "dropped", "sent twice, up", "sent twice, down", title=title)
    for one in found:
        twice = f"{one.twice_up_mb:.1f} MB", f"{one.twice_down_mb:.1f} MB"
        shown.add_row(one.link.name, f"{one.round_s:.2f} s", str(one.drops), *twice)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.links", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--parameters", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="the first one is left out of the times")
    parser.add_argument("--rtt-ms", type=float, default=100.0)
    parser.add_argument("--drop-every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument(
        "--mb-per-s", type=float, default=2.0, help="of each connection of the link that drops, each way"
    )
    given = parser.parse_args(arguments)
    rate = 1e6 * given.mb_per_s
    links = [
        Link("as it is"),
        Link(f"{given.rtt_ms:g} ms round trip", rtt_s=given.rtt_ms / 1e3),
        Link(f"drops every {given.drop_every:g} s", drop_every_s=given.drop_every, bytes_per_s=rate),
    ]
    found = []
    for link in links:
        began = time.monotonic()
        found.append(measure(link, given.nodes, given.parameters, given.rounds))
        print(f"{link.name}: completed in {time.monotonic() - began:.0f} s", flush=True)
    console().print(table(found, FLOAT_BYTES * given.parameters / 1e6, given.nodes))


if __name__ == "__main__":
    main()
