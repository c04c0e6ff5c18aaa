"""Agents of a grid world that share the body of their network, beside such that share all of it, or nothing.

    python -m benchmarks.partial_sharing                     # 5 seeds; prints a table
    python -m benchmarks.partial_sharing --seeds 1 --rounds 12
    python -m benchmarks.partial_sharing --json FILE --page docs/results.md    # also replaces the table of that page

Four agents in two pairs of maps (task `grid-world`): the goal is at the eastern edge of two, at the western edge of the
others, and an observation does not say where. Every agent makes the same number of moves. The agent `alone` is a
run with one node. Everything is simulated; the same seed gives the same numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.methods.page import update
from covey.coordinator.config import sqlite_url
from covey.metrics import counted
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.spec import RunSpec, parse_data
from covey.storage.sql.store import open_store
from covey.telemetry import configure_logging

PART = "partial-sharing"
MAPS = ("east-a", "east-b", "west-a", "west-b")
ARMS: Mapping[str, tuple[str, ...]] = {
    "share-body": ("body.*",),
    "share-all": ("body.*", "head.*"),
    "alone": ("body.*",),
}
"""What is shared; an agent alone has nobody to share it with."""
THRESHOLD = 0.75
"""Of the episodes end at the goal: then an agent is said to have learned."""
MOVES = 25
"""A round."""
EVERY = 4
"""Rounds between two evaluations."""


def spec_of(arm: str, seed: int, rounds: int, maps: Sequence[str] = MAPS) -> RunSpec:
    """The run of one arm with agents on these maps."""
    return parse_data(
        {
            "name": f"{arm}-{seed}",
            "seed": seed,
            "task": {
                "name": "grid-world",
                "options": {"map": maps[0]},
                "nodes": {f"n{k}": {"map": name} for k, name in enumerate(maps) if k},
            },
            "data": {"partition": "local"},
            "training": {"optimizer": "adam", "learning_rate": 0.002, "batch_size": 32, "local_steps": MOVES},
            "exchange": {"share": list(ARMS[arm])},
            "weights": {"by": "equal"},
            "evaluation": {"where": "nodes", "every": EVERY},
            "rounds": {"count": rounds},
        }
    )


def curves(arm: str, seed: int, rounds: int) -> list[dict[str, float]]:
    """Of each version that is evaluated the mean over the agents of `return` and `solved`."""
    if arm != "alone":
        return _simulated(spec_of(arm, seed, rounds), len(MAPS))
    runs = [_simulated(spec_of(arm, 1000 * seed + k, rounds, [name]), 1) for k, name in enumerate(MAPS)]
    return [{key: statistics.fmean(run[at][key] for run in runs) for key in runs[0][at]} for at in range(len(runs[0]))]


def _simulated(spec: RunSpec, nodes: int) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="covey-sharing-") as name:
        folder = Path(name) / "record"
        run = asyncio.run(simulate(Plan(spec, nodes, folder, processes=1)))
        if run.state != "completed":
            raise RuntimeError(f"the run {run.name} is {run.state}: {run.reason}")
        store = open_store(sqlite_url(folder))
        try:
            versions = [
                version for version in store.versions(run.run) if version.version % EVERY == 0 and version.version
            ]
        finally:
            store.close()
    evaluated = [counted(cast(Mapping[str, float | str], version.metrics)) for version in versions]
    return [{key: metrics[f"nodes/{key}"] for key in ("return", "solved")} for metrics in evaluated]


def moves_needed(curve: Sequence[Mapping[str, float]]) -> int | None:
    """After how many moves of each agent `solved` first was at the threshold in two evaluations on end; None: never."""
    for number, (now, after) in enumerate(itertools.pairwise(curve), start=1):
        if min(now["solved"], after["solved"]) >= THRESHOLD:
            return number * MOVES * EVERY
    return None


def report(outcomes: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], rounds: int) -> list[str]:
    """The table, of each arm's curves by seed."""
    seeds = len(next(iter(outcomes.values())))
    lines = [
        f"4 agents, {rounds} rounds of {MOVES} moves, {seeds} seed{'s' * (seeds > 1)}; mean of the last 3 evaluations.",
        "",
        f"| arm | greedy return | of the seeds | solved | moves to {THRESHOLD:.0%} solved (seeds that got there) |",
        "|---|---|---|---|---|",
    ]
    for arm, by_seed in outcomes.items():
        last = [{key: statistics.fmean(step[key] for step in curve[-3:]) for key in curve[0]} for curve in by_seed]
        returns = [end["return"] for end in last]
        needed = [moves for curve in by_seed if (moves := moves_needed(curve)) is not None]
        learned = f"{statistics.median(needed):.0f} ({len(needed)} of {seeds})" if needed else f"never (0 of {seeds})"
        solved = statistics.fmean(end["solved"] for end in last)
        spread = f"{min(returns):.2f} to {max(returns):.2f}"
        lines.append(f"| {arm} | {statistics.fmean(returns):.2f} | {spread} | {solved:.0%} | {learned} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.partial_sharing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="Keep the curves here, and go on from what is there.")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"replace the part {PART} of this page")
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.rounds % EVERY or given.rounds < 3 * EVERY:
        parser.error("needs at least 1 seed, and 12 rounds or another multiple of 4")
    configure_logging("console", "error")
    known: dict[str, Any] = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    for seed in range(1, given.seeds + 1):
        for arm in ARMS:
            name = f"{arm}/{seed}/{given.rounds}"
            if name not in known:
                known[name] = curves(arm, seed, given.rounds)
                if given.json:
                    given.json.write_text(json.dumps(known))
    seeds = range(1, given.seeds + 1)
    outcomes = {arm: [known[f"{arm}/{seed}/{given.rounds}"] for seed in seeds] for arm in ARMS}
    lines = report(outcomes, given.rounds)
    print("\n".join(lines))
    if given.page:
        update(given.page, PART, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
