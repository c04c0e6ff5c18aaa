"""Memory-augmented optimizers against the same without memory, each at its own best learning rate.

Runs of five nodes with Covey's own operations (`covey.testing.method_rounds`), labels split by Dirichlet 0.5, ten
rounds, batches of 32: `digits` (64-64-10, one epoch a round) and `mnist` (784-128-10, 20 steps a round). The score is
the mean central accuracy over all rounds, so that speed counts. Each method's learning rate is the best of six, each
twice the one before, by the score on a seed that is not used for the comparison: what adds a second gradient
of about the same length may only be a doubled learning rate. `sum` and `mean` are the two ways in which `memory` joins
gradients, here 5 of them, with decay 0.7 and kappa 1 (McRae et al., arXiv 2106.10708).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, interval, table, values
from benchmarks.methods.page import update
from benchmarks.methods.pool import Record
from covey.errors import TaskError
from covey.metrics import counted
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.execute.node_ops import evaluate
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.program.host import Host

NAME = "memory-optimizers"
NODES, ROUNDS, SEEDS, TUNING = 5, 10, range(5), (101,)
DATA: Mapping[str, Mapping[str, Any]] = {
    "digits": {"task": {"name": "digits"}, "steps": {"local_epochs": 1}},
    "mnist": {"task": {"name": "idx-images"}, "steps": {"local_steps": 20}},
}
RATES: Mapping[str, tuple[float, ...]] = {
    "sgd": tuple(0.05 * 2**k for k in range(6)),
    "momentum": tuple(0.0125 * 2**k for k in range(6)),
    "adam": tuple(0.001 * 2**k for k in range(6)),
}
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "base": ("none", {}),
    "sum": ("memory", {"aggregate": "sum"}),
    "mean": ("memory", {"aggregate": "mean"}),
}
SETTINGS = tuple(f"{data}, {optimizer}" for data, optimizer in product(DATA, RATES))


def at(method: str, rate: float) -> str:
    """A method with a learning rate, as its cases have it."""
    return f"{method} at {rate:g}"


def tuning(settings: Sequence[str]) -> list[Case]:
    """Every method with every learning rate, on a seed of its own."""
    return [
        Case(setting, at(method, rate), seed)
        for seed, setting, method in product(TUNING, settings, METHODS)
        for rate in RATES[setting.split(", ")[1]]
    ]


def best(outcomes: Outcomes, setting: str, method: str) -> float:
    """The learning rate with the best mean score on the seed for tuning."""
    tuned = {case: outcome for case, outcome in outcomes.items() if case.seed in TUNING}

    def score(rate: float) -> float:
        mean = interval(values(tuned, setting, at(method, rate), "score")).mean
        return mean if mean == mean else -1.0

    return max(RATES[setting.split(", ")[1]], key=score)


def compared(outcomes: Outcomes, settings: Sequence[str], quick: bool) -> list[Case]:
    """Every method at its best learning rate, on paired seeds."""
    return [
        Case(setting, at(method, best(outcomes, setting, method)), seed)
        for seed, setting, method in product(SEEDS[:1] if quick else SEEDS, settings, METHODS)
    ]


def run(case: Case, quick: bool) -> Outcome:
    """One training: central accuracy in percent after the last round, and the mean of all rounds; NaN: it diverged."""
    data, optimizer = case.setting.split(", ")
    method, _, rate = case.method.partition(" at ")
    name, options = METHODS[method]
    training = {"optimizer": optimizer, "learning_rate": float(rate), "batch_size": 32, **DATA[data]["steps"]}
    spec = spec_of(
        name,
        options,
        task=DATA[data]["task"],
        seed=case.seed,
        training=training,
        data={"partition": "dirichlet", "alpha": 0.5},
    )
    accuracies = []
    with tempfile.TemporaryDirectory() as folder:
        rounds, host = MethodRounds(spec, Path(folder), NODES), Host(torch.device("cpu"))
        for _ in range(2 if quick else ROUNDS):
            try:
                rounds.round()
            except TaskError:
                return {"accuracy": float("nan"), "score": float("nan")}
            job = EvaluateJob("run", spec.to_json(), rounds.model, "central", {}, {}, True, rounds.layout.to_json())
            total, count = counted(evaluate(job, host).metrics)["accuracy"]
            accuracies.append(100 * total / count)
    return {"accuracy": accuracies[-1], "score": sum(accuracies) / len(accuracies)}


def report(outcomes: Outcomes, settings: Sequence[str] = SETTINGS) -> list[str]:
    """Scores and accuracies at each method's best learning rate, and the claim."""
    paired = {case: outcome for case, outcome in outcomes.items() if case.seed in SEEDS}
    rows: list[list[object]] = []
    claims: list[list[object]] = []
    for setting in settings:
        names = {method: at(method, best(outcomes, setting, method)) for method in METHODS}
        for method, name in names.items():
            measured = [interval(values(paired, setting, name, measure)) for measure in ("score", "accuracy")]
            rows.append([setting, method, f"{best(outcomes, setting, method):g}", *measured])
            if method != "base":
                both = (values(paired, setting, each, "score") for each in (name, names["base"]))
                gain = interval([ours - theirs for ours, theirs in zip(*both, strict=True)])
                claims.append([f"{setting}: memory with {method} > without", gain, better(gain)])
    return [
        *table(["data, optimizer", "memory", "best learning rate", "mean over rounds, %", "after the last, %"], rows),
        "",
        *table(["claim (mean over rounds)", "difference in points", "verdict"], claims),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, compare, print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods.memory_optimizers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one seed and two rounds: does it run")
    parser.add_argument("--data", choices=tuple(DATA), help="one of the data sets only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep outcomes here; what is there is not run again")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also replace the tables of this page")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    record, wanted = Record(given.json), tuple(s for s in SETTINGS if given.data in (None, s.split(", ")[0]))
    known = record.of(NAME)
    for cases in (partial(tuning, wanted), partial(compared, known, wanted, given.quick)):
        for case in [case for case in cases() if case not in known]:
            known[case] = run(case, given.quick)
            record.add(NAME, case, known[case])
    lines = [*(__doc__ or "").strip().splitlines(), "", *report(known, wanted)]
    print("\n".join(lines))
    if given.page:
        update(given.page, NAME, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
