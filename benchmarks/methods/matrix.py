"""Attack against rule on label-sorted MNIST: n = 25 nodes, f = 5 of them adversaries.

784-32-10 network, worker momentum 0.9 (v <- 0.9 v + 0.1 g), batch 32, learning rate 0.2, 400 iterations; 8,000 training
and 2,000 test images. The honest nodes share the training images, sorted by label: most see one digit only. Without an
attack all 25 nodes are honest, and the rules still assume f = 5. Adversaries know the honest vectors, and all send the
same; with flipped labels they train on random images, and noise differs from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, methods_of, table, values
from benchmarks.methods.data import CLASSES, Batches, Digits, Problem, by_label, iid, problem
from benchmarks.methods.network import Network
from covey.aggregation.attacks import ATTACKS as ATTACK_KIND
from covey.aggregation.attacks import Attack, AttackContext
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AGGREGATORS, PRE_AGGREGATORS, AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.vectors import TensorVector, Vector

NAME, SETTING = "matrix", "label-sorted"
NODES, FAULTY, BATCH, STEPS, MOMENTUM = 25, 5, 32, 400, 0.9
RATE, VOTE_RATE = 0.2, 0.001
NETWORK = Network(32)
SEEDS = 3
F = {"f": FAULTY}


@dataclass(frozen=True)
class Rule:
    """A rule with its options, behind a pre-aggregator with its own."""

    name: str
    options: Mapping[str, int | float] | None = None
    pre: str = ""
    pre_options: Mapping[str, int | float] | None = None
    rate: float = RATE

    def make(self) -> Aggregator:
        rule = AGGREGATORS.make(self.name, self.options)
        return Composed([PRE_AGGREGATORS.make(self.pre, self.pre_options)], rule) if self.pre else rule


RULES = {
    "mean": Rule("mean"),
    "norm-clip": Rule("norm-clip"),
    "median": Rule("median", F),
    "trimmed-mean": Rule("trimmed-mean", F),
    "krum": Rule("krum", F),
    "multi-krum": Rule("multi-krum", F),
    "bulyan": Rule("bulyan", F),
    "geometric-median": Rule("geometric-median"),
    "centered-clip": Rule("centered-clip", {"tau": 1.0, "iterations": 3}),
    "fltrust (100 root images)": Rule("fltrust"),
    "zeno (100 root images)": Rule("zeno", F),
    "majority-vote": Rule("majority-vote", F, rate=VOTE_RATE),
    "nnm + trimmed-mean": Rule("trimmed-mean", F, "nearest-neighbour-mixing", F),
    "bucketing + centered-clip": Rule("centered-clip", {"tau": 1.0, "iterations": 3}, "bucketing", {"s": 2}),
}
ATTACKS: Mapping[str, tuple[str, Mapping[str, float | str]] | None] = {
    "none": None,
    "-10 mean": ("ipm", {"epsilon": 10.0}),
    "label flip": ("label-flip", {}),
    "gaussian": ("gaussian", {}),
    "alie 1.5": ("alie", {"z": 1.5}),
    "ipm 0.1": ("ipm", {"epsilon": 0.1}),
    "ipm 2": ("ipm", {"epsilon": 2.0}),
    "mimic": ("mimic", {}),
    "min-max (std)": ("min-max", {"p": "std"}),
    "min-max (unit)": ("min-max", {"p": "unit"}),
}
REFERENCE = {
    "mean": "93 x 93 14 77 93 92 93 11",
    "norm-clip": "91 12 92 92 82 90 12 89 80",
    "median": "37 11 15 42 22 22 11 31 12",
    "trimmed-mean": "46 18 12 85 59 44 12 57 12",
    "krum": "41 18 1 17 19 27 19 26 19",
    "multi-krum": "75 78 74 93 71 50 x 75 73",
    "bulyan": "- 12 3 38 20 21 12 27 6",
    "geometric-median": "90 40 72 90 83 65 50 84 30",
    "centered-clip": "92 74 89 91 62 90 64 91 37",
    "nnm + trimmed-mean": "75 83 74 93 78 71 12 75 73",
    "bucketing + centered-clip": "93 38 92 93 51 92 52 93 80",
}
"""One seed of an implementation that shares no code with this one; it may differ in details: which min-max, the scaling
of inputs, a few settings."""


def cases(quick: bool) -> list[Case]:
    """Every rule under every attack."""
    seeds = range(1 if quick else SEEDS)
    return [Case(attack, rule, seed) for seed in seeds for rule in RULES for attack in ATTACKS]


def run(case: Case, quick: bool) -> Outcome:
    """One training; the accuracy is NaN where the model is not finite any more."""
    rule, attack = RULES[case.method], ATTACKS[case.setting]
    return _Training(problem(case.seed), rule, attack, case.seed).run(STEPS // 10 if quick else STEPS)


class _Training:
    def __init__(
        self, data: Problem, rule: Rule, attack: tuple[str, Mapping[str, float | str]] | None, seed: int
    ) -> None:
        self.data, self.seed, self.rate = data, seed, rule.rate
        self.rule, self.state = rule.make(), dict[str, Tensor]()
        self.attack = ATTACK_KIND.make(attack[0], attack[1]) if attack else None
        self.honest = NODES - FAULTY if attack else NODES
        self.batches = Batches(data.train, by_label(data.train, self.honest), BATCH, seed)
        self.poison = Batches(data.train, iid(data.train, FAULTY, seed), BATCH, seed + 1000)
        self.velocity = torch.zeros(NODES, NETWORK.d)
        self.memory: dict[str, Tensor] = {}

    def run(self, steps: int) -> Outcome:
        model = NETWORK.initial(self.seed)
        for step in range(1, steps + 1):
            root = _Root(self.data.root, model)
            context = AggregationContext(step, self.seed, root, self.rate)
            direction = self._aggregated(self._updates(model, step), context)
            if direction is not None:
                model = model + self.rate * direction
            if not torch.isfinite(model).all():
                break
        return {"accuracy": NETWORK.accuracy(model, self.data.test)}

    def _updates(self, model: Tensor, step: int) -> Tensor:
        """What all nodes send: minus the gradient's running mean, `[25, d]`."""
        gradients = torch.zeros_like(self.velocity)
        gradients[: self.honest] = NETWORK.gradients(model, *self.batches.draw())
        if self.attack is not None and self.attack.poisons_labels:
            x, y = self.poison.draw()
            gradients[self.honest :] = NETWORK.gradients(model, x, CLASSES - 1 - y)
        self.velocity.mul_(MOMENTUM).sub_(gradients, alpha=1 - MOMENTUM)
        rows = self.velocity.clone()
        if self.attack is not None:
            self._attack(self.attack, rows, step)
        return rows

    def _attack(self, attack: Attack, rows: Tensor, step: int) -> None:
        known = UpdateMatrix.of(rows[: self.honest])
        for node in range(self.honest, NODES):
            context = AttackContext(step, self.seed, node, NODES, FAULTY, known, None, self.memory)
            own = TensorVector(rows[node].clone())
            if node > self.honest and attack.omniscient:
                rows[node] = rows[self.honest]  # they act as one
                continue
            rows[node] = attack.vector(own, context).read(slice(0, NETWORK.d))
            memory = attack.remembered(own, context)
            self.memory = {name: vector.read(slice(0, vector.d)).clone() for name, vector in memory.items()}

    def _aggregated(self, rows: Tensor, context: AggregationContext) -> Tensor | None:
        """The rule's direction; rows that are not finite are left out, as the coordinator does."""
        finite = torch.isfinite(rows.sum(1))
        if int(finite.sum()) < max(self.rule.min_updates(), 1):
            return None
        names = [f"node-{i:02}" for i in finite.nonzero().flatten().tolist()]
        result = self.rule.aggregate(UpdateMatrix.of(rows[finite], names), self.state, context)
        self.state = {name: vector.dense() for name, vector in result.state.items()}
        return result.direction.dense()


@dataclass(frozen=True)
class _Root:
    """Trusted images, as `RootData`."""

    images: Digits
    model: Tensor

    def update(self) -> Tensor:
        return -NETWORK.gradients(self.model, self.images.x[None], self.images.y[None])[0]

    def loss(self, step: Vector | None) -> float:
        return NETWORK.loss(self.model if step is None else self.model + step.dense(), self.images)


def report(outcomes: Outcomes) -> list[str]:
    """The matrix, the reference, and the claims."""
    attacks = [attack for attack in ATTACKS if methods_of(outcomes, attack)]
    rules = methods_of(outcomes, attacks[0])
    rows = [[rule, *(interval(values(outcomes, attack, rule)) for attack in attacks)] for rule in rules]
    lines = table(["accuracy in %", *attacks], rows)
    lines += ["", "The same by an independent implementation, one seed:", ""]
    rows = [[rule, *line.split()] for rule, line in REFERENCE.items()]
    lines += table(["accuracy in %", *list(ATTACKS)[:8], "min-max"], rows)
    return [*lines, "", *table(["claim", "difference in points", "verdict"], _claims(outcomes))]


def _claims(outcomes: Outcomes) -> list[list[object]]:
    # (claim, attack, one, other): under the attack, one rule is more accurate than the other.
    wanted = [
        ("Non-iid data alone break the median (Karimireddy et al. 2022)", "none", "mean", "median"),
        ("... and Krum", "none", "mean", "krum"),
        (
            "A little is enough hurts centred clipping more than NNM + trimmed mean",
            "alie 1.5",
            "nnm + trimmed-mean",
            "centered-clip",
        ),
        (
            "NNM repairs the trimmed mean on non-iid data (Allouah et al. 2023), under ALIE",
            "alie 1.5",
            "nnm + trimmed-mean",
            "trimmed-mean",
        ),
        ("... under label flipping", "label flip", "nnm + trimmed-mean", "trimmed-mean"),
        (
            "Bucketing helps under mimic (Karimireddy et al. 2022)",
            "mimic",
            "bucketing + centered-clip",
            "centered-clip",
        ),
        (
            "Centred clipping stands stealthy inner products that break the geometric median",
            "ipm 0.1",
            "centered-clip",
            "geometric-median",
        ),
        ("Min-max breaks the mean", "min-max (unit)", "multi-krum", "mean"),
    ]
    rows: list[list[object]] = []
    for claim, attack, method, other in wanted:
        if {method, other} <= set(methods_of(outcomes, attack)):
            gain = difference(outcomes, attack, method, other)
            rows.append([f"{claim}: {method} > {other}", gain, better(gain)])
    return rows
