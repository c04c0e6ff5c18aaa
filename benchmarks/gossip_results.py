"""What gossip's protocols learn, and what they cost: 8 nodes with two of ten classes each, digits and MNIST.

    python -m benchmarks.gossip_results --no-processes --json gossip.json
    python -m benchmarks.gossip_results --no-simulation --json gossip.json --page docs/results.md

Accuracy and spread come from the simulation, whose models in lock step are those of real processes, bit for bit. There
a training takes one unit of time, and a message half of one to one and a half: `goodput (simulated)` is the part of
its time that a node trains then. Bytes, times, and accuracy and spread once more, come from real processes on this
machine, one seed; times want a quiet machine, so the table says its load. What is in the `--json` file is not measured
again, and the table has all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring.gossip import measure_run
from benchmarks.methods.page import update
from covey.client.experiments.gossip import gossip_plan
from covey.errors import CoveyError
from covey.simulation.gossip.faults import Network
from covey.simulation.gossip.plan import PeerOutcome
from covey.simulation.gossip.simulation import simulate_gossip
from covey.testing.gossip import GossipNodes

NODES, PART = 8, "gossip"
DELAY = 1.0
"""Of a message in the simulation, in trainings."""
SPEC = """
name = "results"
mode = "gossip"
seed = {seed}
[task]
{task}
[data]
partition = "shards"
parts = {parts}
[training]
local_steps = 5
learning_rate = {rate}
[gossip]
steps = {steps}
min_nodes = {nodes}
"""
TASKS = {
    "digits": ('name = "digits"', 0.1),
    "mnist": ('name = "idx-images"\noptions = { set = "mnist", model = "mlp", hidden = 128 }', 0.05),
}
CHOCO = 'protocol = "choco"\ntopology = { name = "ring" }\nmixing = { name = "metropolis-hastings" }\n[exchange]\n'
ALL = 'topology = { name = "complete" }\n'
EVEN = ALL + 'mixing = { name = "metropolis-hastings" }\n'
SETTINGS = {
    "everybody to everybody (all-reduce)": ALL,
    "sgp": "",
    "sgp, overlap 1": "overlap = 1\n",
    "sgp, overlap 3": "overlap = 3\nmax_in_flight = 4\n",
    "sgp, global_every 10": "global_every = 10\n",
    "agp": 'protocol = "agp"\ntopology = { name = "random", options = { peers = 1 } }\n',
    "ad-psgd": 'protocol = "ad-psgd"\ntopology = { name = "random", options = { peers = 1 } }\n',
    "d-psgd": 'protocol = "d-psgd"\ntopology = { name = "ring" }\nmixing = { name = "metropolis-hastings" }\n',
    "choco, scaled-sign": CHOCO + 'codec = "scaled-sign"\n',
    "choco, top-k 10 %": CHOCO + 'codec = "top-k"\noptions = { fraction = 0.1 }\n',
    "epidemic": 'protocol = "epidemic"\ntopology = { name = "random" }\n',
    "gradient-tracking": 'protocol = "gradient-tracking"\n',
    "noloco": 'protocol = "noloco"\ntopology = { name = "matching" }\n',
    "clipped-gossip, f 1": 'protocol = "clipped-gossip"\n' + EVEN,
    "nearest-neighbour-averaging, f 1": 'protocol = "nearest-neighbour-averaging"\n' + ALL,
    "trimmed-mean, f 1": 'protocol = "trimmed-mean"\n' + ALL,
    "alone (its own part only)": "",
}
"""[gossip] of each row."""
MEANS = ("accuracy", "spread", "models_a_step", "simulated_goodput")
Outcome = dict[str, Any]
Measure = Callable[[], Outcome]


def spec_of(task: str, setting: str, steps: int, seed: int) -> str:
    """The run's specification."""
    name, rate = TASKS[task]
    values = {"task": name, "rate": rate, "steps": steps, "seed": seed, "nodes": nodes_of(setting), "parts": NODES}
    return SPEC.format(**values) + SETTINGS[setting]


def nodes_of(setting: str) -> int:
    """How many nodes take part."""
    return 1 if setting.startswith("alone") else NODES


def simulated(task: str, setting: str, steps: int, seed: int) -> Outcome:
    """Accuracy of the consensus model and of the nodes, and how far those are from it."""
    nodes = nodes_of(setting)
    with tempfile.TemporaryDirectory(prefix="covey-results-") as folder:
        file = Path(folder) / "run.toml"
        file.write_text(spec_of(task, setting, steps, seed))
        network = Network(delay=DELAY)
        run = asyncio.run(simulate_gossip(gossip_plan(file, nodes, network=network, data_dir=Path(folder) / "run")))
    accuracies = [peer.metrics["accuracy"] for peer in run.peers if "accuracy" in peer.metrics]
    return {
        "accuracy": run.metrics["accuracy"],
        "nodes": [min(accuracies), max(accuracies)],
        "spread": max(peer.distance or 0.0 for peer in run.peers),
        "models_a_step": run.messages / max(1, sum(peer.steps for peer in run.peers)),
        "simulated_goodput": _goodput(run.peers),
        "mass_is_exact": run.mass.is_exact,
        "steps": steps,
    }


def _goodput(peers: Sequence[PeerOutcome]) -> float:
    trained, blocked = (math.fsum(getattr(peer, name) for peer in peers) for name in ("trained", "blocked"))
    return trained / (trained + blocked)


def real(task: str, setting: str, steps: int, seed: int) -> Outcome:
    """Accuracy, spread, seconds, bytes and goodput of real processes, and the machine's load before they began."""
    load, count = os.getloadavg()[0], nodes_of(setting)
    with tempfile.TemporaryDirectory(prefix="covey-results-") as folder:
        root = Path(folder)
        with GossipNodes(root, spec_of(task, setting, steps, seed), nodes=count) as nodes:
            nodes.start_all()
            nodes.wait(900.0)
            folders = [nodes.folder(index) for index in range(count)]
            measured, out = measure_run(folders), root / "mean.safetensors"
            mean = json.loads(nodes.cli("gossip", "export", *folders, "--out", out, "--evaluate", "--json"))
            is_exact = nodes.audit()["exact"]
    learned = {"accuracy": mean["metrics"]["accuracy"], "spread": mean["spread"], "mass_is_exact": is_exact}
    return {**learned, **measured, "steps": steps, "load": load}


def row(setting: str, seeds: Sequence[Outcome], processes: Outcome | None) -> str:
    """A line of the table: means over the seeds, of accuracy also the least and the most."""
    worst, best = min(outcome["nodes"][0] for outcome in seeds), max(outcome["nodes"][1] for outcome in seeds)
    mean = {name: statistics.fmean(outcome[name] for outcome in seeds) for name in MEANS}
    accuracies = [outcome["accuracy"] for outcome in seeds]
    interval = f" ({min(accuracies):.3f} to {max(accuracies):.3f})" if len(seeds) > 1 else ""
    cells = [setting, str(len(seeds)), f"{mean['accuracy']:.3f}{interval}", f"{worst:.3f} to {best:.3f}"]
    cells += [f"{mean['spread']:.2g}", f"{mean['models_a_step']:.2f}", f"{mean['simulated_goodput']:.0%}"]
    if processes is None:
        return "| " + " | ".join([*cells, *[""] * 6]) + " |"
    cells += [f"{processes['accuracy']:.3f}", f"{processes['spread']:.2g}"]
    cells += [f"{processes[name]:.3f}" for name in ("step_s", "blocked_s")]
    return "| " + " | ".join([*cells, f"{processes['goodput']:.0%}", f"{processes['sent_mb']:.2f}"]) + " |"


def report(task: str, outcomes: Mapping[str, Outcome]) -> list[str]:
    """The table of a task."""
    known = {key: value for key, value in outcomes.items() if key.startswith(f"{task}/")}
    rows, real_runs = [], [value for key, value in known.items() if key.endswith("/processes")]
    for setting in SETTINGS:
        runs = [
            value for key, value in known.items() if key.rpartition("/")[0] == f"{task}/{setting}" and "nodes" in value
        ]
        if runs:
            rows.append(row(setting, runs, known.get(f"{task}/{setting}/processes")))
    steps = next((value["steps"] for key, value in known.items() if not key.endswith("/processes")), 0)
    heads = ["[gossip]", "seeds", "accuracy", "of nodes", "spread", "models a step", "goodput (simulated)"]
    heads += ["accuracy (processes)", "spread (processes)", "s a step", "blocked s", "goodput", "MB a step"]
    text = f"**{task}**, {steps} steps"
    if real_runs:
        loads = [run["load"] for run in real_runs]
        text += f"; real processes: seed 1, {real_runs[0]['steps']} steps, seconds and MB of each node; load before "
        text += f"{min(loads):.1f} to {max(loads):.1f}"
    return [f"{text}:", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows, ""] if rows else []


def keys(tasks: Sequence[str], given: argparse.Namespace) -> Iterator[tuple[str, Measure]]:
    """What is to be measured, by its name in the file: the simulation of all, then real processes."""
    rows = [name for name in SETTINGS if not given.only or name.startswith(tuple(given.only))]
    for task in tasks if not given.no_simulation else ():
        for setting in rows:
            for seed in range(1, given.seeds + 1):
                yield f"{task}/{setting}/{seed}", partial(simulated, task, setting, given.steps, seed)
    for task in tasks if not given.no_processes else ():
        for setting in rows:
            yield f"{task}/{setting}/processes", partial(real, task, setting, given.real_steps, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown; exit code 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gossip_results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"{', '.join(TASKS)} (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows whose name is one of these, or begins so")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real-steps", type=int, default=120, help="of the runs on real processes")
    parser.add_argument("--no-processes", action="store_true", help="no runs on real processes")
    parser.add_argument("--no-simulation", action="store_true", help="only the runs on real processes")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no run later than this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="outcomes; what is there is not measured again")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"replace the part {PART} of this page")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.tasks) - set(TASKS)):
        parser.error(f"no task is named {unknown[0]!r}; choose {', '.join(TASKS)}")
    outcomes: dict[str, Outcome] = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    began, failed = time.monotonic(), 0
    for key, measure in keys(given.tasks or list(TASKS), given):
        if key in outcomes:
            continue
        if given.budget is not None and time.monotonic() - began > given.budget:
            print(f"left out, as the time was over: {key}", file=sys.stderr)
            continue
        try:
            outcomes[key] = measure()
        except CoveyError as error:
            print(f"error: {key}: {error}", file=sys.stderr)
            failed = 1
            continue
        print(f"{key}: {json.dumps(outcomes[key])}", file=sys.stderr, flush=True)
        if given.json:
            given.json.write_text(json.dumps(outcomes, indent=1))
    lines = [line for task in TASKS for line in report(task, outcomes)]
    print("\n".join(lines))
    if given.page:
        update(given.page, PART, lines)
    return failed


if __name__ == "__main__":
    sys.exit(main())
