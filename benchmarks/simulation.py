"""How long a simulation of many nodes takes on this machine: mode `rounds`, the task digits, every node in every round.

    python -m benchmarks.simulation                       # 1,000 nodes, 20 rounds
    python -m benchmarks.simulation --nodes 100 --rounds 20 --codec qsgd

`--json` prints one line: `nodes`, `rounds`, `processes`, `codec`, `seconds` (all of it), `round_s` (median time between
two commits), `update_cpu_ms` (processor time of all processes for one update), `peak_rss_mb` (of the process with
coordinator and nodes), `accuracy`, `model_sha256`. Processor time does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from covey.coordinator.config import sqlite_url
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.spec import parse_toml
from covey.storage.sql.store import open_store
from covey.telemetry import configure_logging

AIM_S = 300.0
"""For 1,000 nodes and 20 rounds on two cores."""
SPEC = """\
name = "digits"
seed = 7
[task]
name = "digits"
[training]
learning_rate = 0.5
[exchange]
codec = "{codec}"
[rounds]
count = {rounds}
min_nodes = {nodes}
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--codec", default="none")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.nodes < 1 or given.rounds < 2 or given.processes < 1:
        parser.error("needs at least 1 node, 2 rounds and 1 process")
    return given


def measure(nodes: int, rounds: int, processes: int, codec: str) -> dict[str, Any]:
    """Run one simulation in a folder of its own, and say what it took."""
    spec = parse_toml(SPEC.format(codec=codec, rounds=rounds, nodes=nodes))
    cpu_before, began = _cpu_s(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="covey-simulation-") as name:
        folder = Path(name) / "record"
        run = asyncio.run(simulate(Plan(spec, nodes, folder, processes)))
        seconds, cpu_s = time.monotonic() - began, _cpu_s() - cpu_before
        recorded = _recorded(folder, run.run)
    return {
        "nodes": nodes,
        "rounds": rounds,
        "processes": processes,
        "codec": codec,
        "state": run.state,
        "seconds": round(seconds, 2),
        "update_cpu_ms": round(1000 * cpu_s / (nodes * rounds), 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **recorded,
    }


def _cpu_s() -> float:
    """Processor time of this process and of its ended children, in seconds."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _recorded(folder: Path, run: str) -> dict[str, Any]:
    store = open_store(sqlite_url(folder))
    try:
        commits = [round_.committed_at for round_ in store.rounds(run) if round_.committed_at is not None]
        newest = store.version(run, -1)
    finally:
        store.close()
    times = [after - before for before, after in pairwise(commits)]
    return {
        "round_s": round(statistics.median(times), 3) if times else None,
        "accuracy": newest.metrics.get("accuracy"),
        "model_sha256": newest.model_sha256,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; exit code 1 if the run did not complete, or took longer than the aim."""
    given = parse_arguments(arguments)
    configure_logging("console", "error")
    measured = measure(given.nodes, given.rounds, given.processes, given.codec)
    if given.json:
        print(json.dumps(measured))
    else:
        for name, value in measured.items():
            print(f"{name:>14}  {value}")
    whole = (given.nodes, given.rounds) == (1000, 20)
    if whole and not given.json:
        print(f"{'aim':>14}  at most {AIM_S:g} s: {'met' if measured['seconds'] <= AIM_S else 'missed'}")
    return int(measured["state"] != "completed" or (whole and measured["seconds"] > AIM_S))


if __name__ == "__main__":
    sys.exit(main())
