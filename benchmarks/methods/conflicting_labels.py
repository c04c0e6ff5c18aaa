"""Partial sharing where labels conflict: nodes that share the body of their model, all of it, or nothing.

Runs of four nodes with Covey's own operations (`covey.testing.method_rounds`), 64-64-10 on `digits`, 12 rounds of 2
epochs, batches of 20, learning rate 0.3. Each node has 100 images, and calls the ten classes by names of its own (a
permutation, drawn from the seed), so that no head suits two nodes. `share-body` is `[exchange] share = ["0.*"]`;
`alone` is a run with one node, once for each of them. Accuracy is the mean over the nodes, each with its own tensors,
on the same 360 images by the node's own names, after the last round. (Shi 2021, arXiv 2109.14998, has agents whose
rewards conflict; `python -m benchmarks.partial_sharing`.)
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch.utils.data import TensorDataset

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, table, values
from covey.learning.task import NodeData
from covey.learning.tasks.digits import CLASSES, Digits
from covey.testing.method_rounds import MethodRounds, spec_of

NAME, SEEDS = "conflicting-labels", 5
NODES, ROUNDS, EXAMPLES = 4, 12, 100
SETTING = "4 nodes, 100 images each"
BODY, ALONE, ALL = "share-body", "alone", "share-all"
ARMS: Mapping[str, Sequence[str]] = {BODY: ("0.*",), ALONE: ("*",), ALL: ("*",)}
"""What is shared; a node alone has nobody to share it with."""


class Renamed(Digits):
    """Digits, of which each node has few, and calls the classes by names of its own."""

    class Options(Digits.Options):
        """[task.options]."""

        node: int = Field(default=0, ge=0)
        """Which of the nodes: which examples it has."""
        names: int = Field(default=0, ge=0)
        """Seed of the permutations: of each node another one."""

    options: Options

    def train_data(self, data: NodeData) -> TensorDataset:
        """(float32 [64], int64 label), a hundred examples."""
        first = EXAMPLES * self.options.node
        return self._renamed(super().train_data(data), slice(first, first + EXAMPLES))

    def eval_data(self, data: NodeData) -> TensorDataset:
        """The same 360 images for all nodes."""
        return self._renamed(super().central_data(), slice(None))

    def _renamed(self, data: TensorDataset, rows: slice) -> TensorDataset:
        seed = 1000 * self.options.names + self.options.node
        order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(seed))
        x, y = data.tensors
        return TensorDataset(x[rows], order[y[rows]])


def cases(quick: bool) -> list[Case]:
    """All trainings, seed by seed."""
    return [Case(SETTING, arm, seed) for seed, arm in product(range(1 if quick else SEEDS), ARMS)]


def run(case: Case, quick: bool) -> Outcome:
    """One arm: the nodes' mean accuracy in percent after the last round."""
    options = [{"node": node, "names": case.seed} for node in range(NODES)]
    together = [[own] for own in options] if case.method == ALONE else [options]
    rounds = 2 if quick else ROUNDS
    accuracies = [accuracy for nodes in together for accuracy in _accuracies(case, nodes, rounds)]
    return {"accuracy": 100 * statistics.fmean(accuracies)}


def _accuracies(case: Case, nodes: Sequence[Mapping[str, Any]], rounds: int) -> list[float]:
    """What each of the nodes that take part in one run comes to."""
    own = {f"n{index}": dict(options) for index, options in enumerate(nodes)}
    spec = spec_of(
        "none",
        task={"name": f"{__name__}:{Renamed.__name__}", "options": own.pop("n0"), "nodes": own},
        seed=case.seed,
        training={"learning_rate": 0.3, "batch_size": 20, "local_epochs": 2},
        data={"partition": "local"},
        exchange={"share": list(ARMS[case.method])},
        evaluation={"where": "nodes"},
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = MethodRounds(spec, Path(folder), len(nodes))
        for _ in range(rounds):
            trained.round()
        return [trained.evaluate(name)["accuracy"] for name in trained.names]


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, and the two claims."""
    row = [SETTING, *(interval(values(outcomes, SETTING, arm)) for arm in ARMS)]
    claims: list[list[object]] = []
    for arm, base in ((BODY, ALONE), (ALONE, ALL)):
        gain = difference(outcomes, SETTING, arm, base)
        claims.append([f"{arm} > {base}", gain, better(gain)])
    return [*table(["accuracy, %", *ARMS], [row]), "", *table(["claim", "difference in points", "verdict"], claims)]
