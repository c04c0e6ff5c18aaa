"""NoLoCo: local training with an outer step that averages over one random pair at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Context, Protocol, Received, State, Update, weighted_mean
from covey.gossip.protocols.momentum import has_heavy_ball
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.options import PluginOptions
from covey.spec import GossipSection

V = TypeVar("V")
DIFFERENCE, MOMENTUM = "difference", "momentum"


class NoLoCoOptions(PluginOptions):
    """[gossip.protocol.options] of `noloco`."""

    momentum: float = Field(default=0.5, ge=0, lt=1)
    """mu: the factor on the outer momentum."""
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.7
    """lr: the outer learning rate, on the pair's mean of what training did."""
    pull: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.7
    """The factor on the way to the pair's mean model."""


class NoLoCo(Protocol):
    """Slow weights phi: m <- mu m + lr mean(D) + pull (mean(phi) - phi); phi <- phi + m; D: what training from phi did.

    Means are over a pair, drawn anew in each step among those who are there; a node without a partner steps with its
    own D. Source: "NoLoCo" (arXiv 2506.10911); the pull has a factor of its own here, and is bounded by it. The pulls
    of a pair sum to zero, so the mean of all phi moves by the mean of all D, if both of a pair step with each other or
    neither: a node steps with a partner whose model of the same step it has, and that it had sent its own.
    """

    Options = NoLoCoOptions
    options: NoLoCoOptions
    travels = (DIFFERENCE,)
    keeps = (MOMENTUM,)
    mixes_alone = True
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        return PushSumPolicy(section.steps, 0, section.max_in_flight, mutual=True)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        section, options = run.spec.gossip, self.options
        if section.topology.name != "matching":
            yield (
                "gossip.topology",
                f'protocol "{run.name}" averages in pairs; write topology = {{ name = "matching" }}',
            )
        if section.overlap:
            yield "gossip.overlap", f'protocol "{run.name}" needs lock step: a pair steps together; leave it out'
        if section.rate_correction is not None:
            yield "gossip.rate_correction", f'protocol "{run.name}" runs in lock step; leave it out'
        for key in ("momentum", "outer"):
            if getattr(section, key) != "none":
                yield f"gossip.{key}", f'protocol "{run.name}" has its own outer momentum; leave it out'
        if has_heavy_ball(run.spec.training):
            text = f'protocol "{run.name}" has its own outer momentum, which another one inside a step would add to'
            yield "training.optimizer", f'{text}; choose "sgd" or "adam"'
        if (radius := spread_factor(options.momentum, options.pull)) >= 1:
            text = f"with momentum {options.momentum:g} a pull of {options.pull:g} drives the nodes apart"
            more = f"the mean square of their distances grows by {radius:.2f} a step; choose smaller values"
            yield "gossip.protocol.options.pull", f"{text}: {more}, such as momentum 0.5 with pull 0.7"

    @override
    def train(self, state: State[V], change: V, scale: float, context: Context[V]) -> Update[V]:
        """Phi stays: what training did travels beside it."""
        return Update(context.algebra.combination([]), {DIFFERENCE: change})

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        """The outer step; without a partner, or with one whose model is none, the node's own.

        A node without mass of its own joins: it takes over what came.
        """
        options, combination = self.options, context.algebra.combination
        zero = combination([])
        if math.fsum(other.share for other in received) >= 1.0:
            change = weighted_mean(state, received, context.algebra).change
            return Update(change, {MOMENTUM: zero, DIFFERENCE: zero})
        members = 1 + len(received)
        momentum, own = state.vectors.get(MOMENTUM, zero), state.vectors.get(DIFFERENCE, zero)
        terms = [(momentum, options.momentum), (own, options.rate / members)]
        for other in received:
            terms.append((other.vectors[DIFFERENCE], options.rate / members))
            terms += [(other.model, options.pull / members), (state.model, -options.pull / members)]
        momentum = combination(terms)
        return Update(momentum, {MOMENTUM: momentum, DIFFERENCE: zero})


def spread_factor(momentum: float, pull: float) -> float:
    """By what the mean square of the nodes' distances is multiplied in a step, in the long run; from 1 on they diverge.

    With e a node's distance from the mean, partners independent of each other and no training, E[e^2], E[e m] and
    E[m^2] follow a linear recursion: m' = mu m + pull (e_j - e) / 2, e' = e + m'. This is its spectral radius. The
    recursion of the means alone (2 x 2) has a radius of sqrt(mu) for most pulls, and does not see this: it says that mu
    0.9 with pull 0.7 contracts.
    """
    squares = np.array([pull**2 / 2, -momentum * pull, momentum**2])
    half = np.array([-pull / 2, momentum, 0.0])
    step = np.array([np.array([1.0, 0.0, 0.0]) + 2 * half + squares, half + squares, squares])
    return float(np.abs(np.linalg.eigvals(step)).max())
