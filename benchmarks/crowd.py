"""Many nodes: what they cost the coordinator while idle, and how the time of a round grows with their number.

    python -m benchmarks.crowd --nodes 200
    python -m benchmarks.crowd --nodes 10 50 100 200 --rounds 10

The nodes are light ones (`benchmarks.measuring.light_nodes`): real sessions of real identities, all in one process,
so that what is measured is the coordinator. A round's time is the difference between two commits; the first round is
left out. `--json` prints one line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.measuring.federation import Work
from benchmarks.measuring.proc import Usage, usage_of
from benchmarks.rounds import console
from covey.testing.federation import Federation

IDLE_S = 30.0
CONNECT_S = 120.0
SETTLE_S = 5.0
AIM_CPU, AIM_MB = 0.02, 500.0


@dataclass(frozen=True)
class Crowd:
    """What was measured of one number of nodes.

    Attributes:
        nodes: How many.
        idle_cpu: CPU of the coordinator and its worker while nothing happens, in cores (0.02: two hundredths of one).
        idle_mb: Resident anonymous memory of both then, 1e6 bytes.
        round_s: Median round.
        round_cpu_s: CPU seconds of the coordinator and its worker a round.
        peak_mb: Their memory after the run, 1e6 bytes.
    """

    nodes: int
    idle_cpu: float
    idle_mb: float
    round_s: float
    round_cpu_s: float
    peak_mb: float


def measure(nodes: int, parameters: int, rounds: int, idle_s: float) -> Crowd:
    """Start a federation with so many light nodes, let it idle, and run it."""
    with tempfile.TemporaryDirectory(prefix="covey-crowd-") as name, Federation(Path(name), nodes) as federation:
        federation.start_coordinator()
        federation.join()
        with _crowd(federation):
            federation.wait_connected(nodes, CONNECT_S)
            time.sleep(SETTLE_S)
            idle_cpu, idle_mb = _idle(federation, idle_s)
            before = _usage(federation)
            run = federation.submit(Work(nodes=nodes, parameters=parameters, rounds=rounds).spec_toml)
            federation.wait(run, timeout_s=60.0 + 30.0 * rounds, poll_s=1.0)
            after, commits = _usage(federation), [entry["committed_at"] for entry in federation.rounds(run)]
    return Crowd(
        nodes=nodes,
        idle_cpu=idle_cpu,
        idle_mb=idle_mb,
        round_s=statistics.median(later - earlier for earlier, later in itertools.pairwise(commits)),
        round_cpu_s=(after.cpu_s - before.cpu_s) / rounds,
        peak_mb=after.private_mb,
    )


@contextlib.contextmanager
def _crowd(federation: Federation) -> Iterator[None]:
    folders = [federation.node_dir(index) / "identity" for index in range(len(federation.names))]
    command = [
        sys.executable,
        "-m",
        "benchmarks.measuring.light_nodes",
        federation.coordinator_address,
        *map(str, folders),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _usage(federation: Federation) -> Usage:
    pids = federation.pids["coordinator"], federation.worker_pids["coordinator"]
    return sum((usage for pid in pids if (usage := usage_of(pid)) is not None), Usage())


def _idle(federation: Federation, idle_s: float) -> tuple[float, float]:
    before = _usage(federation)
    time.sleep(idle_s)
    after = _usage(federation)
    return (after.cpu_s - before.cpu_s) / idle_s, after.private_mb


def table(crowds: Sequence[Crowd], parameters: int) -> Table:
    """The report for people."""
    title = f"light nodes, {parameters:,} parameters"
    shown = Table("nodes", "idle CPU", "idle memory", "round", "a node", "CPU a round", "memory after", title=title)
    for crowd in crowds:
        idle = f"{crowd.idle_cpu:.2%}", f"{crowd.idle_mb:.0f} MB"
        each = f"{crowd.round_s:.3f} s", f"{1e3 * crowd.round_s / crowd.nodes:.1f} ms"
        shown.add_row(str(crowd.nodes), *idle, *each, f"{crowd.round_cpu_s:.3f} s", f"{crowd.peak_mb:.0f} MB")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 1 if idle nodes cost more than they should."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crowd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[200])
    parser.add_argument("--parameters", type=int, default=10_000, help="at most 16,000: an update comes with its offer")
    parser.add_argument("--rounds", type=int, default=10, help="the first one is left out of the times")
    parser.add_argument("--idle", type=float, default=IDLE_S, metavar="SECONDS", help="how long nothing happens")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    crowds = [measure(nodes, given.parameters, given.rounds, given.idle) for nodes in given.nodes]
    if given.json:
        print(json.dumps({"parameters": given.parameters, "crowds": [asdict(crowd) for crowd in crowds]}))
    else:
        console().print(table(crowds, given.parameters))
    return int(any(crowd.idle_cpu >= AIM_CPU or crowd.idle_mb >= AIM_MB for crowd in crowds))


if __name__ == "__main__":
    sys.exit(main())
