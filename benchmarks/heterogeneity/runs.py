"""One run of the comparison in a simulation: its specification, and its score."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.heterogeneity.task import NODES
from benchmarks.methods.cases import Case, Outcome
from covey.coordinator.config import sqlite_url
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.spec import RunSpec, parse_data
from covey.storage.sql.store import open_store

ROUNDS, ACTIVE, EVERY, LAST = 200, 10, 10, 5
FEDAVG, ENSEMBLE, FEDGEN = "FedAvg", "FedEnsemble", "FedGen"
METHODS: Mapping[str, Mapping[str, Any]] = {
    FEDAVG: {"name": "fedensemble"},  # which trains as plain averaging does: one run is both rows
    "FedProx": {"name": "fedprox", "options": {"mu": 1.0}},
    "FedDistill+": {"name": "feddistill-plus"},
    FEDGEN: {"name": "fedgen", "options": {"labels": "exact", "teacher": "weighted_nll"}},
    "SCAFFOLD": {"name": "scaffold"},
}
ALPHAS: Mapping[float, tuple[str, ...]] = {0.1: tuple(METHODS), 0.05: (FEDAVG, FEDGEN), 1.0: (FEDAVG, FEDGEN)}
SEEDS = 5


def setting(alpha: float) -> str:
    """The name of a split."""
    return f"alpha {alpha:g}"


def cases() -> list[Case]:
    """All runs, seed by seed, so that what is compared comes together."""
    return [Case(setting(a), m, s) for s in range(SEEDS) for a, methods in ALPHAS.items() for m in methods]


def spec_of(case: Case, rounds: int) -> RunSpec:
    """The specification: 20 nodes, of which 10 train in a round, 20 steps of batch 32, SGD 0.01 x 0.99 a round."""
    alpha = next(alpha for alpha in ALPHAS if setting(alpha) == case.setting)
    training: dict[str, Any] = {
        "learning_rate": 0.01,
        "batch_size": 32,
        "local_steps": 20,
        "schedule": {"learning_rate": {"kind": "exponential", "factor": 0.99}},
    }
    if case.method == "FedProx":
        training["weight_decay"] = 0.001
    return parse_data(
        {
            "name": "heterogeneity",
            "seed": case.seed,
            "task": {
                "name": "benchmarks.heterogeneity.task:HeterogeneousMnist",
                "options": {"alpha": alpha, "seed": case.seed},
            },
            "training": training,
            "data": {"partition": "key"},
            "method": METHODS[case.method],
            "rounds": {"count": rounds, "participants": ACTIVE, "min_nodes": ACTIVE},
            "evaluation": {"every": min(EVERY, rounds), "batch_size": 1000},
        }
    )


def run(case: Case, rounds: int = ROUNDS) -> Outcome:
    """Simulate one run: metrics in percent, each the mean of the last five evaluations (the evaluated rounds' mean)."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(spec_of(case, rounds), NODES, Path(folder) / "simulation", processes=1)
        record = asyncio.run(simulate(plan))
        if record.state != "completed":
            raise RuntimeError(f"{case}: {record.reason}")
        with closing(open_store(sqlite_url(plan.folder))) as store:
            evaluated = [v.metrics for v in store.versions(record.run) if "accuracy" in v.metrics]
    scores: dict[str, list[float]] = {}
    for metrics in evaluated[-LAST:]:
        for name, value in metrics.items():
            if isinstance(value, float):
                scores.setdefault(name, []).append(value)
    return {name: 100 * mean(values) if name.endswith("accuracy") else mean(values) for name, values in scores.items()}
