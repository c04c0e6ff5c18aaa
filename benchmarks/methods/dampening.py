"""Kardam's dampening of stale gradients: none, inverse 1 / (1 + tau), exponential exp(-0.2 tau).

784-32-10 network; 10 honest nodes with equal random parts of 8,000 MNIST images. Each update is one gradient of batch
32, of a random node, on the model of tau versions ago: tau is normal, rounded, at least 0; N(6, 2) and N(12, 4) as in
the paper's experiments; 2,000 updates. `constant` multiplies every gradient by the mean of a dampening over the same
staleness: what a smaller learning rate alone would do.
"""

from __future__ import annotations

from collections import deque
from itertools import product

import torch
from torch import Tensor

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, settings_of, table, values
from benchmarks.methods.data import Batches, iid, problem
from benchmarks.methods.network import Network
from covey.aggregation.asynchronous.dampening import exponential, inverse
from covey.seeds import derive_seed

NAME = "dampening"
NODES, BATCH, UPDATES, SEEDS, ALPHA = 10, 32, 2000, 5, 0.2
NETWORK = Network(32)
STALENESS = {"N(6, 2)": (6.0, 2.0), "N(12, 4)": (12.0, 4.0)}
RATES = (0.1, 0.3)
NONE, INVERSE, EXPONENTIAL = "none", "inverse", "exponential"
CONSTANTS = {"constant, as inverse": INVERSE, "constant, as exponential": EXPONENTIAL}
METHODS = (NONE, INVERSE, EXPONENTIAL, *CONSTANTS)
SETTINGS = {f"tau ~ {name}, lr {rate}": (name, rate) for name, rate in product(STALENESS, RATES)}


def cases(quick: bool) -> list[Case]:
    """Every dampening with every learning rate."""
    seeds = range(1 if quick else SEEDS)
    return [Case(setting, method, seed) for seed in seeds for setting in SETTINGS for method in METHODS]


def run(case: Case, quick: bool) -> Outcome:
    """One training; the accuracy is NaN where the model is not finite any more."""
    name, rate = SETTINGS[case.setting]
    stale = _staleness(*STALENESS[name], case.seed, UPDATES // 10 if quick else UPDATES)
    factors = _factors(case.method, stale)
    data = problem(case.seed)
    batches = Batches(data.train, iid(data.train, NODES, case.seed), BATCH, case.seed)
    chosen = torch.randint(NODES, (len(stale),), generator=_generator(case.seed, "node"))
    model = NETWORK.initial(case.seed)
    versions = deque([model], maxlen=max(stale) + 1)
    for step, (tau, factor) in enumerate(zip(stale, factors, strict=True)):
        x, y = batches.draw_of(int(chosen[step]))
        seen = versions[-1 - min(tau, len(versions) - 1)]
        model = model - rate * factor * NETWORK.gradients(seen, x, y)[0]
        if not torch.isfinite(model).all():
            break
        versions.append(model)
    return {"accuracy": NETWORK.accuracy(model, data.test)}


def _staleness(mean: float, std: float, seed: int, count: int) -> list[int]:
    drawn: Tensor = torch.randn(count, generator=_generator(seed, "staleness")) * std + mean
    return [int(tau) for tau in drawn.round().clamp(min=0).tolist()]


def _factors(method: str, stale: list[int]) -> list[float]:
    if method in CONSTANTS:
        factors = _factors(CONSTANTS[method], stale)
        return [sum(factors) / len(factors)] * len(factors)
    if method == INVERSE:
        return [inverse(tau) for tau in stale]
    return [exponential(tau, ALPHA) if method == EXPONENTIAL else 1.0 for tau in stale]


def _generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, and the claims in every setting."""
    rows = [[setting, *(interval(values(outcomes, setting, m)) for m in METHODS)] for setting in settings_of(outcomes)]
    claims: list[list[object]] = []
    for setting in settings_of(outcomes):
        for claim, method, other in (
            ("dampening is better than none", INVERSE, NONE),
            ("exponential is better than inverse (DynSGD's), as Kardam's authors claim", EXPONENTIAL, INVERSE),
            ("dampening does more than a smaller learning rate", INVERSE, "constant, as inverse"),
            ("dampening does more than a smaller learning rate", EXPONENTIAL, "constant, as exponential"),
        ):
            gain = difference(outcomes, setting, method, other)
            claims.append([setting, f"{claim}: {method} > {other}", gain, better(gain)])
    return [
        *table(["accuracy in %", *METHODS], rows),
        "",
        *table(["setting", "claim", "difference in points", "verdict"], claims),
    ]
