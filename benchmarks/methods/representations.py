"""Few labels: methods that compare views of all examples, beside the labelled examples alone, on digits.

Runs of nodes with Covey's own operations (`covey.testing.method_rounds`), 64-64-10, batches of 64, learning rate 0.1:
4 nodes whose labels are split by a Dirichlet distribution, or 2 with data dealt at random. Each node has so many
labelled examples of each label, its support the same number. PAWS with a bank has as many embeddings of each label
from every other node, once a round. SimCLR is `suncet` with `neighbours = 0`. Accuracy is central, after the last
round.

What the bank is worth as support: with the model of the last round but one, which made the bank, the central images are
predicted by their soft nearest neighbours (PAWS, equation 1, temperature 0.1) among what a node itself showed, and
among what all showed; means over the nodes. Bytes are those of embeddings, of all nodes together, up in a round; each
node gets those of the others.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, table, values
from covey.learning.representations.neighbours import Support, soft_labels
from covey.learning.tasks.digits import CLASSES, Digits
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
TEMPERATURE = 0.1


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
            before, metrics = trained.tensors(), trained.round().metrics
        support: dict[str, float] = {}
        if case.method == BANK:
            support = by_neighbours(before, list(trained.members["bank"].values()))
            support["bytes"] = metrics["bank/bytes"][0]
        job = EvaluateJob("run", spec.to_json(), trained.model, "central", {}, {}, True, trained.layout.to_json())
        total, count = counted(evaluate(job, host).metrics)["accuracy"]
    return {"accuracy": 100 * total / count, **support}


def by_neighbours(model: Mapping[str, Tensor], banks: Sequence[Path]) -> dict[str, float]:
    """How many of the central images are predicted right by neighbours, in percent.

    Args:
        model: The tensors of the model that made the embeddings.
        banks: What each node showed: files of float32 `[classes, n, width]`, zeros where it has no such example.

    Returns:
        `own`: among what one node showed, the mean over the nodes; `all`: among what all showed.
    """
    task = Digits()
    network = task.model()
    network.load_state_dict(dict(model))
    split = task.split(network)
    if split is None:
        raise TypeError("the task names no predictor")
    images, labels = task.central_data().tensors
    with torch.no_grad():
        queries = split.extractor(images)
    each = [_support(path, queries.shape[1]) for path in banks]
    together = Support(*(torch.cat(parts) for parts in zip(*each, strict=True)))
    right = [_right(queries, labels, support) for support in each]
    return {"own": statistics.fmean(right), "all": _right(queries, labels, together)}


def _support(path: Path, width: int) -> Support:
    rows = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32).view(-1, width)
    labels = torch.arange(CLASSES).repeat_interleave(len(rows) // CLASSES)
    used = (rows != 0).any(1)
    return Support(rows[used], functional.one_hot(labels[used], CLASSES).float())


def _right(queries: Tensor, labels: Tensor, support: Support) -> float:
    return 100 * float((soft_labels(queries, support, TEMPERATURE).argmax(1) == labels).float().mean())


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies by setting, what each method adds, and what the bank is worth as support."""
    rows = [[setting, *(interval(values(outcomes, setting, method)) for method in METHODS)] for setting in SETTINGS]
    pairs = [*((method, ALONE) for method in METHODS if method != ALONE), (BANK, PAWS)]
    claims: list[list[object]] = []
    for setting, (method, base) in product(SETTINGS, pairs):
        gain = difference(outcomes, setting, method, base)
        claims.append([f"{setting}: {method} > {base}", gain, better(gain)])
    return [
        *table(["accuracy, %", *METHODS], rows),
        "",
        *table(["claim", "difference in points", "verdict"], claims),
        "",
        *table(
            ["right by neighbours, %", "own support", "bank of all", "difference", "bank > own support", "bytes up"],
            [_worth(outcomes, setting) for setting in SETTINGS],
        ),
    ]


def _worth(outcomes: Outcomes, setting: str) -> list[object]:
    own, bank, size = (values(outcomes, setting, BANK, measure) for measure in ("own", "all", "bytes"))
    gain = interval([theirs - ours for ours, theirs in zip(own, bank, strict=True)])
    return [setting, interval(own), interval(bank), gain, better(gain), f"{statistics.fmean(size):,.0f}"]
