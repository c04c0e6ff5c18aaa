"""Rounds through a bad link, one that is far away and one that drops: how long they take, and what is sent twice.

    python -m benchmarks.links
    python -m benchmarks.links --parameters 5000000 --nodes 2 --rounds 3 --rtt-ms 100 --drop-every 20 --mb-per-s 2
    python -m benchmarks.links --parameters 50000000 --nodes 1 --rounds 6 --only far

The link that is far away is measured twice: with one connection a transfer, and with as many as the link is worth.
All nodes reach their coordinator through a relay on loopback (`covey.testing.relay`). Bytes sent twice are those of
`covey round show`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measuring.federation import FLOAT_BYTES, Work
from benchmarks.rounds import console
from covey.node.operator.config import SETTINGS_FILE
from covey.testing.federation import Federation
from covey.testing.relay import Direction, RelayThread
from covey.wire.transfers.lanes import MAX_LANES

KINDS = ("near", "far", "drops")
DIRECTIONS: tuple[Direction, ...] = ("up", "down")


@dataclass(frozen=True)
class Link:
    """What is between the nodes and their coordinator."""

    name: str
    rtt_s: float = 0.0
    drop_every_s: float = 0.0
    bytes_per_s: float | None = None
    connections: int = MAX_LANES


@dataclass(frozen=True)
class Passed:
    """What a run took.

    Attributes:
        link: Through which link.
        round_s: Seconds a round, median.
        last_s: Seconds of the last round: by then transfers know the link.
        drops: Connections dropped.
        twice_up_mb: Megabytes (1e6) of updates that came twice.
        twice_down_mb: Of models that were sent twice.
    """

    link: Link
    round_s: float
    last_s: float
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
                _allow(federation.node_dir(index) / SETTINGS_FILE, link.connections)
                federation.start_node(index, options=["--server", relay.address])
            federation.wait_connected(nodes)
            run = federation.submit(Work(nodes=nodes, parameters=parameters, rounds=rounds).spec_toml)
            drops = _follow(federation, relay, run, link.drop_every_s)
        entries = federation.rounds(run)
        details = [_detail(federation, run, entry["round"]) for entry in entries]
    commits = [entry["committed_at"] for entry in entries]
    times_s = [later - earlier for earlier, later in itertools.pairwise(commits)]
    up, down = (sum(detail[f"bytes_resent_{way}"] for detail in details) / 1e6 for way in DIRECTIONS)
    return Passed(link, statistics.median(times_s), times_s[-1], drops, up, down)


def _detail(federation: Federation, run: str, number: int) -> dict[str, Any]:
    target = ["--data-dir", federation.coordinator_dir, "--json"]
    detail: dict[str, Any] = json.loads(federation.cli("round", "show", run, number, *target))
    return detail


def _allow(settings: Path, connections: int) -> None:
    """Let the transfers of a node take so many connections at most."""
    text = settings.read_text() if settings.exists() else "[limits]\n"
    settings.write_text(text.replace("[limits]\n", f"[limits]\nconnections = {connections}\n", 1))


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


def table(passes: Sequence[Passed], model_mb: float, nodes: int) -> Table:
    """The report for people."""
    title = f"{nodes} nodes, a model of {model_mb:,.0f} MB"
    shown = Table("link", "round", "last round", "dropped", "sent twice, up", "sent twice, down", title=title)
    for passed in passes:
        twice = f"{passed.twice_up_mb:.1f} MB", f"{passed.twice_down_mb:.1f} MB"
        shown.add_row(passed.link.name, f"{passed.round_s:.2f} s", f"{passed.last_s:.2f} s", str(passed.drops), *twice)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
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
    parser.add_argument("--only", choices=KINDS, nargs="+", help="not all of the links")
    given = parser.parse_args(arguments)
    rate = 1e6 * given.mb_per_s
    far = f"{given.rtt_ms:g} ms round trip"
    links = {
        "near": [Link("as it is")],
        "far": [
            Link(f"{far}, one connection", rtt_s=given.rtt_ms / 1e3, connections=1),
            Link(far, rtt_s=given.rtt_ms / 1e3),
        ],
        "drops": [Link(f"drops every {given.drop_every:g} s", drop_every_s=given.drop_every, bytes_per_s=rate)],
    }
    passes = []
    for link in [link for kind in given.only or KINDS for link in links[kind]]:
        began = time.monotonic()
        passes.append(measure(link, given.nodes, given.parameters, given.rounds))
        print(f"{link.name}: completed in {time.monotonic() - began:.0f} s", flush=True)
    console().print(table(passes, FLOAT_BYTES * given.parameters / 1e6, given.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
