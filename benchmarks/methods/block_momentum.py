"""Block momentum against averaging: 16 nodes, 16 local steps a round, 20 rounds.

784-32-10 network, 8,000 MNIST images over 16 nodes, at random or sorted by label; local SGD with batch 32. The mean
of the nodes' changes goes through a server optimizer: `average` is sgd with learning rate 1 (K-step averaging);
`momentum` is v <- mu v + d, x <- x + v (Cong and Liu, arXiv 2110.00625); `nesterov` with learning rate 0.7 and mu = 0.9
is DiLoCo's outer step. Every method with every local learning rate; methods are compared each at its own best one,
chosen by its mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, interval, methods_of, table, values
from benchmarks.methods.data import Batches, by_label, iid, problem
from benchmarks.methods.network import Network
from covey.aggregation.contract import AGGREGATORS, AggregationContext
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.server_optimizers import SERVER_OPTIMIZERS

NAME = "block-momentum"
NODES, BATCH, LOCAL_STEPS, ROUNDS, SEEDS = 16, 32, 16, 20, 5
NETWORK = Network(32)
SPLITS, RATES = ("random", "label-sorted"), (0.1, 0.2, 0.4)
METHODS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "average": ("sgd", {}),
    "momentum 0.5": ("momentum", {"momentum": 0.5}),
    "momentum 0.9": ("momentum", {"momentum": 0.9}),
    "nesterov 0.9, lr 0.7": ("nesterov", {}),
}


def _setting(split: str, rate: float) -> str:
    return f"{split}, local lr {rate}"


SETTINGS = {_setting(split, rate): (split, rate) for split, rate in product(SPLITS, RATES)}


def cases(quick: bool) -> list[Case]:
    """Every server optimizer with every local learning rate."""
    seeds = range(1 if quick else SEEDS)
    return [Case(setting, method, seed) for seed in seeds for setting in SETTINGS for method in METHODS]


def run(case: Case, quick: bool) -> Outcome:
    """One training: accuracy in percent, and mean loss over the training images, at the end."""
    split, rate = SETTINGS[case.setting]
    data = problem(case.seed)
    parts = iid(data.train, NODES, case.seed) if split == "random" else by_label(data.train, NODES)
    batches = Batches(data.train, parts, BATCH, case.seed)
    name, options = METHODS[case.method]
    optimizer = SERVER_OPTIMIZERS.make(name, options)
    state = {slot: torch.zeros(NETWORK.d) for slot in optimizer.slots}
    model, rule = NETWORK.initial(case.seed), AGGREGATORS.make("mean")
    for step in range(1, 1 + (ROUNDS // 10 if quick else ROUNDS)):
        changes = _locally(model, batches, rate) - model
        if not torch.isfinite(changes).all():
            return {"accuracy": float("nan"), "loss": float("nan")}
        context = AggregationContext(step, case.seed)
        direction = rule.aggregate(UpdateMatrix.of(changes), {}, context).direction.dense()
        optimizer.begin(step)
        model = optimizer.step_block(model, direction, state, step)
    return {"accuracy": NETWORK.accuracy(model, data.test), "loss": NETWORK.loss(model, data.train)}


def _locally(model: Tensor, batches: Batches, rate: float) -> Tensor:
    """Every node's model after its local steps, `[16, d]`."""
    models = model.repeat(NODES, 1)
    for _ in range(LOCAL_STEPS):
        models.sub_(NETWORK.gradients(models, *batches.draw()), alpha=rate)
    return models


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, and the claim at each method's best learning rate."""
    lines: list[str] = []
    claims: list[list[object]] = []
    for split in SPLITS:
        rows = [
            [method, *(interval(values(outcomes, _setting(split, rate), method)) for rate in RATES)]
            for method in methods_of(outcomes, _setting(split, RATES[0]))
        ]
        lines += ["", *table([f"{split}: accuracy in %", *(f"local lr {rate}" for rate in RATES)], rows)]
        plain = _best(outcomes, split, "average")
        for method in list(METHODS)[1:]:
            rate = _best(outcomes, split, method)
            ours = values(outcomes, _setting(split, rate), method)
            theirs = values(outcomes, _setting(split, plain), "average")
            gain = interval([a - b for a, b in zip(ours, theirs, strict=True)])
            claim = f"{split}: {method} (lr {rate}) > average (lr {plain}) after as many rounds"
            claims.append([claim, gain, better(gain)])
    return [*lines[1:], "", *table(["claim", "difference in points", "verdict"], claims)]


def _best(outcomes: Outcomes, split: str, method: str) -> float:
    def mean(rate: float) -> float:
        mean = interval(values(outcomes, _setting(split, rate), method)).mean
        return mean if mean == mean else -1.0

    return max(RATES, key=mean)
