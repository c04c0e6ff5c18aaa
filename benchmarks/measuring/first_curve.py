"""From `import covey` to the first plotted curve: of a federation on this machine, and of a simulation.

    python -m benchmarks.measuring.first_curve
    python -m benchmarks.measuring.first_curve --repeat 5 --nodes 4 --rounds 3

Each time in a new interpreter, whose own start does not count. Seconds by the wall clock, and of processor time of the
interpreter and all that it started. The load of the machine before is said: on a busy one only the latter mean much.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 600.0
WAYS = ("local", "simulate")
PROGRAM = """
import json, os, sys, time
began = time.perf_counter()
way, nodes, rounds, picture = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
spec = {
    "name": "digits", "seed": 7, "task": {"name": "digits"}, "rounds": {"count": rounds, "min_nodes": nodes},
    "training": {"learning_rate": 0.1, "batch_size": 32},
}
import covey
if way == "local":
    with covey.local(nodes) as federation:
        run = federation.submit(spec).wait(progress=False)
        run.metrics().to_frame().plot(x="round", y="accuracy").figure.savefig(picture)
        wall = time.perf_counter() - began
else:
    run = covey.simulate(spec, nodes)
    run.metrics().to_frame().plot(x="round", y="accuracy").figure.savefig(picture)
    wall = time.perf_counter() - began
    run.close()
print(json.dumps([wall, sum(os.times()[:4])]))
"""


def measure(way: str, nodes: int, rounds: int) -> tuple[float, float]:
    """Seconds until the picture is written, and of processor time until all processes have ended.

    Args:
        way: `local` or `simulate`.
        nodes: How many.
        rounds: Of the run.

    Raises:
        RuntimeError: It failed; the message holds its errors.
    """
    with tempfile.TemporaryDirectory(prefix="covey-curve-") as folder:
        picture = Path(folder) / "curve.png"
        command = [sys.executable, "-c", PROGRAM, way, str(nodes), str(rounds), str(picture)]
        environment = {**os.environ, "MPLBACKEND": "agg"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
        if done.returncode != 0 or not picture.stat().st_size:
            raise RuntimeError(done.stderr)
    wall, processor = json.loads(done.stdout.splitlines()[-1])
    return float(wall), float(processor)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.first_curve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {given.repeat}")
    for way in WAYS:
        times = [measure(way, given.nodes, given.rounds) for _ in range(given.repeat)]
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{way:<9} {given.nodes} nodes, {given.rounds} rounds: {wall:6.1f} s, {processor:6.1f} s of processor time"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
