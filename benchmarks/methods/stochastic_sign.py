"""Stochastic-Sign SGD where each of 31 nodes has one digit only, with majority vote.

The setting of the authors' code, but for the number of images: 784-128-10 network, full local batches (4,000 MNIST
images in all), 101 rounds; with adversaries 4 more nodes send the opposite of the honest gradients' sign. Learning
rates: the best of two to four for each method without adversaries, on a seed that is not used here.

`signSGD` sends the sign, and a random one for a gradient of zero (`sto-sign` with a bound of 1e-6): where a node has
one digit, many of its gradients are exactly zero, and codec `sign`, for which zero is positive, votes them all the same
way. `oracle b` is the paper's bound: in each coordinate the largest gradient of this very round. `broadcast b` is what
runs do: one bound a tensor, from the round before. `+ EF` is error feedback at the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, settings_of, table, values
from benchmarks.methods.data import Digits, one_label, problem
from benchmarks.methods.network import Network
from covey.aggregation.attacks import ATTACKS, AttackContext
from covey.aggregation.contract import AGGREGATORS, AggregationContext, Aggregator
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.codecs.contract import CODECS, Codec, CodecContext
from covey.codecs.random_streams import uniforms
from covey.seeds import derive_seed
from covey.vectors import TensorVector, Vector

NAME = "stochastic-sign"
HONEST, IMAGES, ROUNDS, SEEDS, LEAST = 31, 4000, 101, 3, 1e-6
NETWORK = Network(128)
SETTINGS = {"no adversary": 0, "4 adversaries": 4}
ORACLE = "oracle"


@dataclass(frozen=True)
class Method:
    """What nodes send, how it is combined, and the learning rate."""

    codec: str
    rate: float
    options: Mapping[str, float | str] = field(default_factory=dict)
    rule: Mapping[str, str] | None = field(default_factory=dict)
    """Options of majority vote; None: the mean."""


EF = {"error_feedback": "server"}
METHODS = {
    "mean of gradients": Method("none", 1.0, rule=None),
    "signSGD, sign(0) = +1": Method("sign", 0.01),
    "signSGD": Method("sto-sign", 0.001, {"bound": LEAST}),
    "sto-sign, oracle b": Method(ORACLE, 0.003),
    "sto-sign, oracle b + EF": Method(ORACLE, 0.003, rule=EF),
    "sto-sign, broadcast b": Method("sto-sign", 0.01),
    "sto-sign, broadcast b + EF": Method("sto-sign", 0.01, rule=EF),
    "sto-sign, b = 0.01": Method("sto-sign", 0.003, {"bound": 0.01}),
    "sto-sign, b = 0.1": Method("sto-sign", 0.003, {"bound": 0.1}),
}


def cases(quick: bool) -> list[Case]:
    """Every method with and without adversaries."""
    seeds = range(1 if quick else SEEDS)
    return [Case(setting, method, seed) for seed in seeds for setting in SETTINGS for method in METHODS]


def run(case: Case, quick: bool) -> Outcome:
    """One training."""
    return train(METHODS[case.method], SETTINGS[case.setting], case.seed, ROUNDS // 10 if quick else ROUNDS)


def train(method: Method, adversaries: int, seed: int, rounds: int) -> Outcome:
    """One training: accuracy in percent, NaN where the model is not finite any more."""
    data = problem(seed, IMAGES)
    parts = [data.train[part] for part in one_label(data.train, HONEST)]
    rule: Aggregator = (
        AGGREGATORS.make("mean")
        if method.rule is None
        else AGGREGATORS.make("majority-vote", {**method.rule, "f": adversaries})
    )
    model, broadcast, state = NETWORK.initial(seed), b"", dict[str, Tensor]()
    for number in range(1, rounds + 1):
        honest = _full_gradients(model, parts).neg_()
        context = CodecContext(seed, number, rounds, NETWORK.layout, broadcast)
        readers = _sent(method, honest, adversaries, context)
        rows = [Row(f"node-{i:02}", 1 / len(readers), reader) for i, reader in enumerate(readers)]
        result = rule.aggregate(UpdateMatrix(rows), state, AggregationContext(number, seed))
        state = {name: vector.dense() for name, vector in result.state.items()}
        if method.codec == "sto-sign":
            broadcast = _codec(method).summary(readers[:HONEST], context)
        model = model + method.rate * result.direction.dense()
    return {"accuracy": NETWORK.accuracy(model, data.test)}


def _full_gradients(model: Tensor, parts: list[Digits]) -> Tensor:
    return torch.cat([NETWORK.gradients(model, part.x[None], part.y[None]) for part in parts])


def _codec(method: Method) -> Codec:
    return CODECS.make(method.codec, method.options)


def _sent(method: Method, honest: Tensor, adversaries: int, context: CodecContext) -> list[Vector]:
    """What arrives of every node, adversaries last."""
    oracle = honest.abs().amax(0).clamp_(min=LEAST)
    codec = CODECS.make("sign") if method.codec == ORACLE else _codec(method)
    readers = []
    for node, row in enumerate(honest):
        own = CodecContext(
            derive_seed(context.seed, "codec", context.round, node),
            context.round,
            context.rounds,
            context.layout,
            context.broadcast,
        )
        drawn = (uniforms(own.seed, slice(0, len(row))) < 0.5 + row / (2 * oracle)) if method.codec == ORACLE else None
        readers.append(_arrived(codec, TensorVector(row if drawn is None else drawn.float() * 2 - 1), own))
    if adversaries:
        attack = ATTACKS.make("ipm", {"epsilon": 1.0})
        known = AttackContext(context.round, context.seed, known=UpdateMatrix.of(honest))
        plain = CODECS.make("none" if method.codec == "none" else "sign")
        readers += [_arrived(plain, attack.vector(TensorVector(honest[0]), known), context)] * adversaries
    return readers


def _arrived(codec: Codec, source: Vector, context: CodecContext) -> Vector:
    return codec.reader(b"".join(map(bytes, codec.encode(source, context))), source.d, context.layout)


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, and the claims."""
    rows = [
        [method, method_.rate, *(interval(values(outcomes, setting, method)) for setting in settings_of(outcomes))]
        for method, method_ in METHODS.items()
    ]
    none, attacked = SETTINGS
    wanted = [
        ("random signs repair signSGD on different data", none, "sto-sign, oracle b", "signSGD"),
        ("... as runs do it", none, "sto-sign, broadcast b", "signSGD"),
        ("error feedback improves random signs", none, "sto-sign, oracle b + EF", "sto-sign, oracle b"),
        ("... as runs do it", none, "sto-sign, broadcast b + EF", "sto-sign, broadcast b"),
        ("random signs stand adversaries better than signSGD", attacked, "sto-sign, oracle b", "signSGD"),
        ("... with b = 0.01", attacked, "sto-sign, b = 0.01", "signSGD"),
        ("a larger b stands fewer adversaries", attacked, "sto-sign, b = 0.01", "sto-sign, b = 0.1"),
    ]
    claims = []
    for claim, setting, better_method, other in wanted:
        gain = difference(outcomes, setting, better_method, other)
        claims.append([f"{setting}: {claim}: {better_method} > {other}", gain, better(gain)])
    return [
        *table(["accuracy in %", "learning rate", *settings_of(outcomes)], rows),
        "",
        *table(["claim", "difference in points", "verdict"], claims),
    ]
