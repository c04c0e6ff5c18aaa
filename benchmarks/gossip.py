"""How long an exchange between peers takes on real gossip nodes, beside bare streams of the same bytes.

    python -m benchmarks.gossip
    python -m benchmarks.gossip --nodes 4 8 --parameters 25000000 --steps 10 --json
    python -m benchmarks.gossip --only pair exact --durability power
    python -m benchmarks.gossip --only overlap --train-seconds 2
    python -m benchmarks.gossip --slow-node 10 --steps 12 --train-seconds 1

What is measured (`--only`): `push`: one-peer stochastic gradient push; `pair`: nodes exchange in pairs; `complete`:
everybody sends to everybody; `exact`: two pushes among four nodes, after which all have the exact mean (the figure to
stand beside other libraries' averaging step); `overlap`: seconds a step in lock step, and with one step of overlap.
`--json` prints a line for each run; its fields are those of `benchmarks.measuring.gossip.GossipMeasured.as_json`.

`--slow-node 10` measures something else: what the others' steps take where one node trains ten times as long as they
do, beside as many nodes at the same time of which none is slow: in lock step, overlapped, and asynchronous. Trainings
take `--train-seconds` without using the processor, so that a busy machine is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.table import Table

from benchmarks.measuring.gossip import LEFT_OUT, GossipMeasured, GossipWork, measure_gossip
from benchmarks.measuring.slow_node import SETTINGS, SlowMeasured, SlowWork, measure_slow
from benchmarks.rounds import console
from covey.errors import CoveyError
from covey.testing.launch import forks

TOPOLOGIES = {"push": "exponential", "pair": "matching", "complete": "complete", "exact": "exponential"}
KINDS = (*TOPOLOGIES, "overlap")
EXACT_NODES, EXACT_PUSHES = 4, 2
AIM = 1.7
"""Times bare streams: what an exchange may take."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gossip", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[4])
    parser.add_argument("--parameters", type=int, default=25_000_000, help="float32 values of the model")
    parser.add_argument("--steps", type=int, default=8, help=f"the first {LEFT_OUT} are left out of the times")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--durability", nargs="+", choices=("process", "power"), default=["process"])
    parser.add_argument("--train-seconds", type=float, default=2.0, help="of a step, where overlap is measured")
    parser.add_argument("--no-floor", action="store_true", help="do not measure bare streams")
    parser.add_argument("--slow-node", type=float, metavar="TIMES", help="measure what a slower node costs the others")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for each run")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if min(given.nodes) < 2 or given.steps < LEFT_OUT + 2 or given.parameters < 1:
        parser.error(f"needs at least 2 nodes, {LEFT_OUT + 2} steps and a parameter")
    if given.slow_node is not None and given.slow_node < 1:
        parser.error("--slow-node says how many times as long as the others one node trains: 1 or more")
    return given


def works(given: argparse.Namespace) -> Iterator[tuple[str, GossipWork]]:
    """What is to be run, by name."""
    for durability in given.durability:
        plain = GossipWork(
            parameters=given.parameters, steps=given.steps, durability=durability, timeout_s=given.timeout, still=True
        )
        for kind in given.only:
            if kind == "exact":
                yield kind, replace(plain, nodes=EXACT_NODES)
            elif kind in TOPOLOGIES:
                yield from ((kind, replace(plain, nodes=nodes, topology=TOPOLOGIES[kind])) for nodes in given.nodes)
            else:
                slow = replace(plain, nodes=given.nodes[0], train_seconds=given.train_seconds)
                yield from ((f"overlap {overlap}", replace(slow, overlap=overlap)) for overlap in (0, 1))


def figures(kind: str, measured: GossipMeasured) -> dict[str, object]:
    """The line of a run."""
    line = {"kind": kind, **measured.as_json()}
    if kind == "exact":
        line["averaged_s"] = EXACT_PUSHES * statistics.median(measured.mixed_s)
    return line


def _row(kind: str, measured: GossipMeasured) -> list[str]:
    work, cpu = measured.work, measured.cpu_s
    floor = f"{statistics.median(measured.floor_s):.3f}" if measured.floor_s else ""
    of_floor = ""  # where exchanges overlap with training, they may take as long as that does
    if measured.floor_s and work.overlap == 0:
        of_floor = f"[{'green' if measured.ratio <= AIM else 'red'}]{measured.ratio:.2f} x[/]"
    used = f"{cpu['node']:.2f} + {cpu['node_worker']:.2f} (streams {measured.floor_cpu_s:.2f})"
    averaged = f"; exact mean {EXACT_PUSHES * statistics.median(measured.mixed_s):.3f}" if kind == "exact" else ""
    return [
        f"{kind}, {work.nodes} nodes" + (", power" if work.durability == "power" else ""),
        f"{measured.median_s:.3f}{averaged}",
        floor,
        of_floor,
        f"{measured.rate:,.0f}",
        f"{measured.step_s:.3f} ({measured.blocked_s:.3f})",
        f"{measured.goodput:.0%}",
        used,
        f"{measured.peak_mb['daemon']:,.0f}, {measured.peak_mb['worker']:,.0f}",
    ]


def slow_rows(given: argparse.Namespace) -> Iterator[SlowMeasured]:
    """What a slow node costs, by protocol."""
    work = SlowWork(given.nodes[0], given.steps, given.train_seconds, given.slow_node, given.timeout)
    return (measure_slow(setting, work) for setting in SETTINGS)


def _report_slow(given: argparse.Namespace) -> None:
    title = (
        f"{given.nodes[0]} nodes, one of them {given.slow_node:g} times slower, {given.train_seconds:g} s a training"
    )
    rows = Table("", "others: s a step", "no slow node", "times", "slow node: s a step", "mass", title=title)
    for measured in slow_rows(given):
        if given.json:
            print(json.dumps(measured.as_json()), flush=True)
        seconds = [f"{each:.2f}" for each in (measured.others_s, measured.undisturbed_s)]
        exact = "exact" if measured.is_exact else "NOT EXACT"
        rows.add_row(measured.setting, *seconds, f"{measured.ratio:.2f}", f"{measured.slow_s:.2f}", exact)
    if not given.json:
        console().print(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if a run failed."""
    given = parse_arguments(arguments)
    heads = ["", "exchange s", "streams s", f"aim <= {AIM} x", "MB/s", "step s (blocked)", "goodput"]
    title = f"exchanges of {given.parameters * 4 / 1e6:,.2f} MB, medians of {given.steps - LEFT_OUT} steps"
    rows = Table(*heads, "CPU s a step: daemons + workers", "peak MB: daemon, worker", title=title)
    try:
        if given.slow_node is not None:
            forks.enable()  # what is measured is not how a daemon starts
            _report_slow(given)
            return 0
        for kind, work in works(given):
            measured = measure_gossip(work, floor=not given.no_floor)
            if given.json:
                print(json.dumps(figures(kind, measured)), flush=True)
            rows.add_row(*_row(kind, measured))
    except (CoveyError, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not given.json:
        console().print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
