"""Codistillation beside averaging, and beside nodes that train alone: digits of which each node has few.

5 nodes, 64-64-10, 20 rounds of 15 steps, batches of 32, learning rate 0.1. 400 of the 1,437 images are common to all,
without their labels; the others are dealt at random, or by Dirichlet(0.3). `alone` is codistillation with weight 0,
which is training alone, bit for bit; `FedAvg` averages what nodes train, and does not use the common images.
`predictions` and `checkpoints` exchange through a coordinator (Covey's own operations, `covey.testing.method_rounds`),
`predictions, gossip` among peers, everybody to everybody, with overlap 1 (a simulation). Weight 1, no burn-in.
Accuracy is the mean over the nodes, each with its own model (of FedAvg: the common one), on the same 360 images at the
end.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, table, values
from covey.client.experiments.gossip import gossip_plan
from covey.simulation.gossip.simulation import simulate_gossip
from covey.testing.method_rounds import MethodRounds, spec_of

NAME, SEEDS = "codistillation", 3
NODES, ROUNDS, COMMON = 5, 20, 400
DATA: Mapping[str, dict[str, Any]] = {
    "at random": {"partition": "iid"},
    "Dirichlet 0.3": {"partition": "dirichlet", "alpha": 0.3},
}
TRAINING = {"learning_rate": 0.1, "batch_size": 32, "local_steps": 15}
ALONE, AVERAGED, PREDICTIONS, CHECKPOINTS = "alone", "FedAvg", "predictions", "checkpoints"
GOSSIP = "predictions, gossip"
ARMS = (ALONE, AVERAGED, PREDICTIONS, CHECKPOINTS, GOSSIP)
METHODS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ALONE: ("codistill", {"exchange": "checkpoints", "weight": 0.0}),
    AVERAGED: ("none", {}),
    PREDICTIONS: ("codistill", {"classes": 10}),
    CHECKPOINTS: ("codistill", {"exchange": "checkpoints"}),
}
"""Through a coordinator."""


def cases(quick: bool) -> list[Case]:
    """All trainings, seed by seed."""
    return [Case(setting, arm, seed) for seed, setting, arm in product(range(1 if quick else SEEDS), DATA, ARMS)]


def run(case: Case, quick: bool) -> Outcome:
    """One arm: the nodes' mean accuracy in percent after the last round."""
    measured = _among_peers if case.method == GOSSIP else _coordinated
    return {"accuracy": 100 * statistics.fmean(measured(case, 2 if quick else ROUNDS))}


def _sections(case: Case) -> dict[str, Any]:
    task = {"name": "digits", "options": {"common": COMMON, "evaluate_on_nodes": True}}
    return {"seed": case.seed, "task": task, "data": DATA[case.setting], "training": TRAINING}


def _coordinated(case: Case, rounds: int) -> list[float]:
    """Each node's accuracy."""
    method, options = METHODS[case.method]
    sections = {**_sections(case), "evaluation": {"where": "nodes"}, "rounds": {"count": rounds}}
    spec = spec_of(method, options, **sections)
    with tempfile.TemporaryDirectory() as folder:
        trained = MethodRounds(spec, Path(folder), NODES)
        for _ in range(rounds):
            trained.round()
        return [trained.evaluate(name)["accuracy"] for name in trained.names]


def _among_peers(case: Case, rounds: int) -> list[float]:
    """The same of a simulated run without a coordinator."""
    protocol = {"name": "codistill", "options": {"classes": 10}}
    gossip = {"steps": rounds, "overlap": 1, "protocol": protocol, "topology": {"name": "complete"}}
    data = {"name": "codistilled", "mode": "gossip", "gossip": {**gossip, "min_nodes": NODES}, **_sections(case)}
    with tempfile.TemporaryDirectory() as folder:
        done = asyncio.run(simulate_gossip(gossip_plan(data, NODES, data_dir=Path(folder) / "run", processes=1)))
    return [peer.metrics["accuracy"] for peer in done.peers]


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, and the claims."""
    rows = [[setting, *(interval(values(outcomes, setting, arm)) for arm in ARMS)] for setting in DATA]
    claims: list[list[object]] = []
    for setting in DATA:
        for arm, base in ((PREDICTIONS, ALONE), (CHECKPOINTS, ALONE), (GOSSIP, ALONE), (AVERAGED, PREDICTIONS)):
            gain = difference(outcomes, setting, arm, base)
            claims.append([setting, f"{arm} > {base}", gain, better(gain)])
    heads = ["accuracy, %", *ARMS]
    return [*table(heads, rows), "", *table(["data", "claim", "difference in points", "verdict"], claims)]
