"""CHOCO-SGD: neighbours send each other what a codec makes of the difference to what they know of each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field, JsonValue
from typing_extensions import override

from covey.gossip.protocols.contract import ESTIMATE, Combination, Context, Received, State, Update, V
from covey.gossip.protocols.receiving import Receiving
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.options import PluginOptions
from covey.spec import ExchangeSection, GossipSection

GAMMA: Mapping[str, float] = {
    "none": 1.0,
    "fp16": 1.0,
    "bf16": 1.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 1.0,
    "qsgd": 0.8,
    "scaled-sign": 0.5,
}
"""Of codecs that send each element."""
SPARSE: Mapping[str, float] = {"top-k": 2.0, "random-k": 1.0}
"""Of codecs that send a fraction of the elements: times the fraction."""
FRACTION = 0.01
"""What those send by default."""
FEWEST_BITS, FEWEST_LEVELS = 3, 3
"""Of `qsgd`: with fewer its noise is larger than the vector."""


class ChocoSGD(Receiving):
    """q_i = Q(x_i - h_i); h_i += q_i, at each neighbour too; x_i += gamma sum_j W_ij (h_j - h_i).

    x_i is the model after local training, Q the run's codec, h_i what all neighbours know of x_i, W symmetric and
    doubly stochastic. What the codec lost of x_i stays in x_i - h_i and is sent later, and the mean of all models moves
    by the mean of what trainings did. Source: Koloskova, Stich and Jaggi, "Decentralized stochastic optimization and
    gossip algorithms with compressed communication" (ICML 2019), algorithms 1 (CHOCO-Gossip) and 2.

    Deviations: h_i begins as x_i itself, which is sent whole once, and again whenever a neighbour did not get the body
    before, so that both ends of an edge always have the same h_i. The authors keep sum_j W_ij h_j in place of each h_j:
    that is wrong as soon as W changes, as it does where a node is away. So a node with k neighbours keeps k + 1
    estimates, in its file of vectors that stay; they are read in blocks.
    """

    class Options(PluginOptions):
        """Options of `choco`."""

        gamma: Annotated[float, Field(gt=0, le=1)] | None = None
        """The consensus step size; default: by the codec."""

    options: Options
    needs_doubly_stochastic = True
    differences = True
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        most = section.max_in_flight
        return PushSumPolicy(section.steps, 0, most, least=0, weighs=self.weighs, differences=True)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        if not run.is_fixed:
            text = f'protocol "{run.name}" goes on from what neighbours had before, and in this topology they change'
            yield "gossip.topology", f'{text}; choose "ring" or "complete", or a file with edges both ways'

    @override
    def codec_refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        exchange = run.spec.exchange
        if exchange.codec not in {*GAMMA, *SPARSE}:
            text = f'what "{exchange.codec}" loses of a difference may be more than the difference'
            yield "exchange.codec", f"{text}; choose one of {', '.join(sorted({*GAMMA, *SPARSE}))}"
        elif key := _too_coarse(exchange):
            yield f"exchange.options.{key}", "so what is lost may be more than the difference itself; leave it out"
        elif self.options.gamma is None and exchange.codec in SPARSE and exchange.options.get("k") is not None:
            text = "with k elements it is not known which fraction that is: give a fraction in place of k, or gamma"
            yield "gossip.protocol.options.gamma", text

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        gamma = self.options.gamma or gamma_of(context.spec.exchange)
        terms = [(other.model, gamma * other.share) for other in received]
        own = -gamma * math.fsum(other.share for other in received)
        return Update(context.algebra.combination([*terms, (state.vectors.get(ESTIMATE, state.model), own)]))


def gamma_of(exchange: ExchangeSection) -> float:
    """The step size of a codec, where the run names none: stable on rings of 8, with a margin."""
    if exchange.codec not in SPARSE:
        return GAMMA[exchange.codec]
    return min(1.0, SPARSE[exchange.codec] * _number(exchange.options.get("fraction"), FRACTION))


def _too_coarse(exchange: ExchangeSection) -> str:
    """The option with which a codec may lose more than there is; empty: none."""
    options = exchange.options
    coarse = {
        "unbiased": bool(options.get("unbiased")),
        "norm": options.get("norm") == "l2",
        "bits": exchange.codec == "qsgd" and _number(options.get("bits"), 4) < FEWEST_BITS,
        "levels": _number(options.get("levels"), FEWEST_LEVELS) < FEWEST_LEVELS,
    }
    return next((key for key, is_coarse in coarse.items() if is_coarse), "")


def _number(given: JsonValue, default: float) -> float:
    return given if isinstance(given, float | int) else default
