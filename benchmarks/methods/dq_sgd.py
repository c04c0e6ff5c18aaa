"""DQ-SGD against QSGD at equal bytes: 8 nodes, 500 rounds of one gradient each.

784-32-10 network, 8,000 MNIST images at random over the nodes, batch 32, learning rate 0.2. Each node's gradient goes
through the codec, and the mean of what it decodes to is the step. QSGD has the same number of bits in every round;
DQ-SGD chooses it from the gradient's norm within the same budget. Once with a scale (the largest magnitude) for each
512 elements, as runs do it by default, once with one l2 norm for the whole vector, as in the paper's formulas: its
quantization noise is far greater.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from benchmarks.methods.cases import Case, Outcome, Outcomes, better, difference, interval, table, values
from benchmarks.methods.data import Batches, iid, problem
from benchmarks.methods.network import Network
from covey.aggregation.contract import AGGREGATORS, AggregationContext
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.codecs.contract import CODECS as CODEC_KIND
from covey.codecs.contract import Codec, CodecContext
from covey.seeds import derive_seed
from covey.vectors import TensorVector, Vector

NAME = "dq-sgd"
NODES, BATCH, ROUNDS, RATE, SEEDS = 8, 32, 500, 0.2, 3
NETWORK = Network(32)
FORMS: Mapping[str, Mapping[str, str | int]] = {
    "buckets of 512, max": {"bucket": 512, "norm": "max"},
    "one bucket, l2": {"bucket": 65536, "norm": "l2"},
}
BITS = (3, 4)
SETTINGS = {f"{form}, {bits} bits": (form, bits) for form, bits in product(FORMS, BITS)}
CODECS = ("qsgd", "dq-sgd")
EXACT, NONE = "exact gradients", "none"


def cases(quick: bool) -> list[Case]:
    """Each codec with each form and budget."""
    seeds = range(1 if quick else SEEDS)
    wanted = [(EXACT, NONE), *product(SETTINGS, CODECS)]
    return [Case(setting, codec, seed) for seed in seeds for setting, codec in wanted]


def run(case: Case, quick: bool) -> Outcome:
    """One training: accuracy, mean loss over the training images, and megabytes that the nodes sent."""
    codec = CODEC_KIND.make(case.method, _options(case.setting))
    data = problem(case.seed)
    batches = Batches(data.train, iid(data.train, NODES, case.seed), BATCH, case.seed)
    model, rule = NETWORK.initial(case.seed), AGGREGATORS.make("mean")
    rounds, sent, broadcast = ROUNDS // 10 if quick else ROUNDS, 0, b""
    for step in range(1, rounds + 1):
        context = CodecContext(case.seed, step, rounds, None, broadcast)
        readers, size = _encoded(codec, NETWORK.gradients(model, *batches.draw()), context)
        sent, broadcast = sent + size, codec.summary(readers, context)
        rows = UpdateMatrix([Row(f"node-{i}", 1 / NODES, reader) for i, reader in enumerate(readers)])
        model = model - RATE * rule.aggregate(rows, {}, AggregationContext(step, case.seed)).direction.dense()
        if not torch.isfinite(model).all():
            return {"accuracy": float("nan"), "loss": float("nan"), "megabytes": sent / 1e6}
    loss = NETWORK.loss(model, data.train)
    return {"accuracy": NETWORK.accuracy(model, data.test), "loss": loss, "megabytes": sent / 1e6}


def _options(setting: str) -> dict[str, str | int]:
    if setting == EXACT:
        return {}
    form, bits = SETTINGS[setting]
    return {**FORMS[form], "bits": bits}


def _encoded(codec: Codec, gradients: Tensor, context: CodecContext) -> tuple[list[Vector], int]:
    """Every node's gradient as it arrives, and how many bytes that took."""
    readers, size = [], 0
    for node, gradient in enumerate(gradients):
        seed = derive_seed(context.seed, "codec", context.round, node)
        own = CodecContext(seed, context.round, context.rounds, None, context.broadcast)
        data = b"".join(map(bytes, codec.encode(TensorVector(gradient), own)))
        readers.append(codec.reader(data, len(gradient)))
        size += len(data)
    return readers, size


def report(outcomes: Outcomes) -> list[str]:
    """Accuracies, losses and bytes, and the claims."""
    rows = [_row(outcomes, EXACT, NONE)]
    claims: list[list[object]] = []
    exact = values(outcomes, EXACT, NONE)
    for setting in SETTINGS:
        rows += [_row(outcomes, setting, codec) for codec in CODECS]
        accuracy = difference(outcomes, setting, "dq-sgd", "qsgd")
        claims.append([setting, "DQ-SGD is more accurate than QSGD at equal bytes", accuracy, better(accuracy)])
        pairs = zip(_losses(outcomes, setting, "qsgd"), _losses(outcomes, setting, "dq-sgd"), strict=True)
        fall = interval([a - b for a, b in pairs])
        claims.append([setting, "its training loss is lower (in 0.01)", fall, better(fall)])
        pairs = zip(values(outcomes, setting, "dq-sgd"), exact, strict=True)
        near = interval([a - b for a, b in pairs])
        claims.append([setting, "it is within 0.3 points of exact gradients", near, better(near, -0.3)])
    return [
        *table(["setting", "codec", "accuracy in %", "training loss in 0.01", "MB sent"], rows),
        "",
        *table(["setting", "claim", "difference", "verdict"], claims),
    ]


def _losses(outcomes: Outcomes, setting: str, codec: str) -> list[float]:
    return [100 * loss for loss in values(outcomes, setting, codec, "loss")]


def _row(outcomes: Outcomes, setting: str, codec: str) -> list[object]:
    megabytes = interval(values(outcomes, setting, codec, "megabytes")).mean
    accuracy, loss = interval(values(outcomes, setting, codec)), interval(_losses(outcomes, setting, codec))
    return [setting, codec, accuracy, loss, f"{megabytes:.2f}"]
