"""How long an exchange between peers takes on real gossip nodes, beside bare streams of the same bytes.

    python -m benchmarks.gossip --page docs/gossip.md       # the whole table: about ten minutes on two quiet cores
    python -m benchmarks.gossip --nodes 4 --only pair --durability power --json
    python -m benchmarks.gossip --only overlap --train-seconds 2

What is measured (`--only`): `push`: one-peer stochastic gradient push; `mean`: pushes without training in between,
until four nodes have the exact mean (two of them: the figure to stand beside other libraries' averaging step); `pair`:
nodes exchange in pairs; `complete`: everybody sends to everybody; `power`: one-peer push whose models and record are
synced, beside streams that sync as much. In all of these the nodes begin an exchange at once, as bare streams do:
whoever has published (`mean`: trained) waits for the others. Where they do not: `free`: one-peer push, each node going
on when it can; `overlap`: seconds a step in lock step, and with one step of overlap. Training changes every value in
each step, so no body is one that its receiver has already. `--json` prints a line for each run; its fields are those of
`benchmarks.measuring.gossip.GossipMeasured.as_json`. `--budget` leaves out what would begin
later than that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring.gossip import LEFT_OUT, PUBLISHED, TRAINED, GossipMeasured, GossipWork, measure_gossip
from benchmarks.methods.page import update
from covey.errors import CoveyError

PART = "exchanges"
TOPOLOGIES = {
    "push": "exponential",
    "mean": "exponential",
    "pair": "matching",
    "complete": "complete",
    "power": "exponential",
    "free": "exponential",
}
KINDS = ("push", "mean", "pair", "free", "overlap", "power", "complete")
"""In the order in which they are run: what takes longest comes last."""
EXACT_NODES = 4
AIM = 1.7
"""Times bare streams: what an exchange may take."""
HEADS = (
    "nodes",
    "exchange s",
    "bare streams s",
    f"times (aim <= {AIM})",
    "a batch s",
    "MB/s",
    "step s",
    "training s",
    "blocked s",
    "CPU s a step: daemons + workers (streams)",
    "peak MB: daemon, worker",
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gossip", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8], help="overlap and power: the first one only")
    parser.add_argument("--parameters", type=int, default=25_000_000, help="float32 values of the model")
    parser.add_argument("--steps", type=int, default=7, help=f"the first {LEFT_OUT} are left out of the times")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--train-seconds", type=float, default=2.0, help="of a step, for overlap and the mean")
    parser.add_argument("--no-floor", action="store_true", help="do not measure bare streams")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for each run")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no run later than this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"replace the part {PART} of this page")
    given = parser.parse_args(arguments)
    if min(given.nodes) < 2 or given.steps < LEFT_OUT + 2 or given.parameters < 1:
        parser.error(f"needs at least 2 nodes, {LEFT_OUT + 2} steps and a parameter")
    return given


def works(given: argparse.Namespace) -> Iterator[tuple[str, GossipWork]]:
    """What is to be run, by name."""
    plain = GossipWork(parameters=given.parameters, steps=given.steps, timeout_s=given.timeout)
    for kind in [kind for kind in KINDS if kind in given.only]:
        if kind == "overlap":
            slow = replace(plain, nodes=given.nodes[0], train_seconds=given.train_seconds)
            yield from ((f"overlap {overlap}", replace(slow, overlap=overlap)) for overlap in (0, 1))
            continue
        if kind == "mean":
            work = replace(plain, nodes=EXACT_NODES, global_every=1, steps=max(given.steps // 2, 2))
            # Who trains that long has brought its last batch over when it is held.
            yield kind, replace(work, together=TRAINED, train_seconds=given.train_seconds)
            continue
        work = replace(plain, topology=TOPOLOGIES[kind], durability="power" if kind == "power" else "process")
        for nodes in given.nodes[:1] if kind in ("power", "free") else given.nodes:
            yield kind, replace(work, nodes=nodes, together="" if kind == "free" else PUBLISHED)


def averaged_s(measured: GossipMeasured) -> float | None:
    """How long it takes until all have the exact mean; None: this run is not measured for it."""
    return statistics.median(measured.averaged_s) if measured.averaged_s else None


def figures(kind: str, measured: GossipMeasured) -> dict[str, object]:
    """The line of a run."""
    return {"kind": kind, **measured.as_json(), "averaged_s": averaged_s(measured)}


def _row(kind: str, measured: GossipMeasured) -> str:
    work, cpu, floor = measured.work, measured.cpu_s, ["", ""]
    if measured.floor_s:
        floor[0] = f"{statistics.median(measured.floor_s):.2f}"
        if work.overlap == 0:  # else an exchange may take as long as the training that it overlaps with
            floor[1] = f"{measured.ratio:.2f}"
    cells = [f"{kind}, {work.nodes}", f"{measured.median_s:.2f}", *floor, f"{measured.batch_s:.2f}"]
    cells.append(f"{measured.rate:,.0f}")
    whole = (measured.step_s, measured.trained_s, measured.blocked_s)
    cells += [f"{seconds:.2f}" if not work.together else "" for seconds in whole]  # else they have waiting in them
    cells.append(f"{cpu['node']:.2f} + {cpu['node_worker']:.2f} ({measured.floor_cpu_s:.2f})")
    cells.append(f"{measured.peak_mb['daemon']:,.0f}, {measured.peak_mb['worker']:,.0f}")
    return f"| {' | '.join(cells)} |"


def report(
    given: argparse.Namespace, load: float, runs: Sequence[tuple[str, GossipMeasured]], left_out: Sequence[str]
) -> list[str]:
    """The table as Markdown; `load` is the machine's before the first run."""
    size = given.parameters * 4 / 1e6
    title = f"Models of {size:,.2f} MB, medians of {given.steps - LEFT_OUT} steps"
    title += f", load average before the first run {load:.1f}"
    lines = [f"{title}:", "", f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [_row(kind, measured) for kind, measured in runs]
    for _, measured in runs:
        if (whole_s := averaged_s(measured)) is not None:
            lines += ["", f"The exact mean of {EXACT_NODES} nodes' models, two pushes, mixed: {whole_s:.2f} s."]
    if left_out:
        lines += ["", f"Left out, as the time was over: {', '.join(left_out)}."]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if a run failed."""
    given, began, load = parse_arguments(arguments), time.monotonic(), os.getloadavg()[0]
    runs: list[tuple[str, GossipMeasured]] = []
    left_out: list[str] = []
    failed = 0
    for kind, work in works(given):
        if given.budget is not None and time.monotonic() - began > given.budget:
            left_out.append(f"{kind}, {work.nodes} nodes")
            continue
        try:
            measured = measure_gossip(work, floor=not given.no_floor)
        except (CoveyError, RuntimeError, TimeoutError) as error:
            print(f"error: {kind}, {work.nodes} nodes: {error}", file=sys.stderr)
            failed = 1
            continue
        runs.append((kind, measured))
        print(json.dumps(figures(kind, measured)) if given.json else _row(kind, measured), flush=True)
        if given.page:
            update(given.page, PART, report(given, load, runs, left_out))
    lines = report(given, load, runs, left_out)
    if not given.json:
        print("\n".join(["", *lines]))
    if given.page:
        update(given.page, PART, lines)
    return failed


if __name__ == "__main__":
    sys.exit(main())
