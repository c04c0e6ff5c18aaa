"""Few labels: methods that compare views of all examples, beside the labelled examples alone, on digits.

Runs of nodes with Covey's own operations (`covey.testing.method_rounds`), 64-64-10, batches of 64, learning rate 0.1:
4 nodes whose labels are split by a Dirichlet distribution, or 2 with data dealt at random. Each node has so many
labelled examples of each label, its support the same number. PAWS with a bank has as many embeddings of each label
from every other node, once a round. SimCLR is `suncet` with `neighbours = 0`. Accuracy is central, after the last
round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, table, values
from covey.metrics import counted
from covey.testing.method_rounds import MethodRounds, spec_of
from covey.worker.execute.node_ops import evaluate
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.program.host import Host

NAME, SEEDS = "representations", 5
ALONE, PAWS, BANK = "labelled only", "paws", "paws, bank"
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    ALONE: ("paws", {"weight": 0.0}),
    PAWS: ("paws", {}),
    BANK: ("paws", {}),
    "suncet": ("suncet", {}),
    "simclr": ("suncet", {"neighbours": 0.0}),
}
SETTINGS: Mapping[str, tuple[int, Mapping[str, Any], int, int, int]] = {
    "4 nodes, Dirichlet 0.5, 2 labelled, 30 rounds of 20": (4, {"partition": "dirichlet", "alpha": 0.5}, 2, 30, 20),
    "4 nodes, Dirichlet 0.3, 2 labelled, 15 rounds of 10": (4, {"partition": "dirichlet", "alpha": 0.3}, 2, 15, 10),
    "2 nodes, at random, 1 labelled, 25 rounds of 20": (2, {"partition": "iid"}, 1, 25, 20),
}
"""Nodes, how data are split, labelled examples of each label on a node, rounds, and steps in each."""


def cases(quick: bool) -> list[Case]:
    """All trainings, seed by seed."""
    return [Case(setting, m, seed) for seed, setting, m in product(range(1 if quick else SEEDS), SETTINGS, METHODS)]


def run(case: Case, quick: bool) -> Outcome:
    """One training: central accuracy in percent after the last round."""
    nodes, data, labelled, rounds, steps = SETTINGS[case.setting]
    name, options = METHODS[case.method]
    spec = spec_of(
        name,
        {"labelled": labelled, "support": labelled, **options, **({"bank": labelled} if case.method == BANK else {})},
        task={"name": "digits"},
        seed=case.seed,
        training={"learning_rate": 0.1, "batch_size": 64, "local_steps": steps},
        data=dict(data),
    )
    with tempfile.TemporaryDirectory() as folder:
        trained, host = MethodRounds(spec, Path(folder), nodes), Host(torch.device("cpu"))
        for _ in range(2 if quick else rounds):
            trained.round()
        job = EvaluateJob("run", spec.to_json(), trained.model, "central", {}, {}, True, trained.layout.to_json())
        total, count = counted(evaluate(job, host).metrics)["accuracy"]
    return {"accuracy": 100 * total / count}


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies by setting, and what each method adds."""
    rows = [[setting, *(interval(values(outcomes, setting, method)) for method in METHODS)] for setting in SETTINGS]
    pairs = [*((method, ALONE) for method in METHODS if method != ALONE), (BANK, PAWS)]
    claims: list[list[object]] = []
    for setting, (method, base) in product(SETTINGS, pairs):
        gain = difference(outcomes, setting, method, base)
        claims.append([f"{setting}: {method} > {base}", gain, better(gain)])
    return [*table(["accuracy, %", *METHODS], rows), "", *table(["claim", "difference in points", "verdict"], claims)]
