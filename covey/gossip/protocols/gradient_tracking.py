"""Gradient tracking over directed graphs: each node follows an estimate of everybody's gradient, not its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Context, Protocol, Received, State, Update, weighted_mean
from covey.gossip.protocols.momentum import has_heavy_ball
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSection

V = TypeVar("V")
TRACKER, GRADIENT = "tracker", "gradient"


class GradientTracking(Protocol):
    """Push-DIGing: x, w and y are split by one column-stochastic matrix; y += g_new - g_old, and x -= lr y.

    Source: Nedic, Olshevsky and Shi, "Achieving geometric convergence for distributed optimization over time-varying
    graphs" (SIAM J. Optim. 27(4), 2017), algorithm Push-DIGing. As x = w z is kept as z and w, y is kept as
    r = y / w, the tracker: it travels beside z, both are mixed by the same shares, and z -= lr r is the step with raw
    y. g is what local training at z did, divided by minus its learning rate. The sum of all y is the sum of all g.

    Deviations: a node may leave: what it hands over is y - g. An eviction takes y and g of the evicted out of the sums,
    so tracking restarts: each node begins again at y = g when it hears of it. Trackers are stamped with the number of
    evictions that they know of; of an older one a node takes the model and no y, a newer one makes it restart. So the
    sums agree again among all with one stamp, in whatever order they hear of it.
    """

    travels = (TRACKER,)
    keeps = (GRADIENT,)
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        return PushSumPolicy(section.steps, 0, section.max_in_flight)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        section = run.spec.gossip
        if section.overlap:
            yield (
                "gossip.overlap",
                f'protocol "{run.name}" needs lock step: trackers that are late break its sums; leave it out',
            )
        if section.rate_correction is not None:
            yield "gossip.rate_correction", f'protocol "{run.name}" runs in lock step; leave it out, or choose "agp"'
        if section.momentum != "none":
            yield "gossip.momentum", f"\"{run.name}\" follows everybody's gradient, momentum one's own; leave it out"
        training = run.spec.training
        if has_heavy_ball(training) or training.optimizer in ("adam", "adamw"):
            text = f'with "{training.optimizer}" what training did is no sum of gradients, which "{run.name}" follows'
            yield "training.optimizer", f'{text}; choose "sgd"'
        if section.outer != "none":
            yield (
                "gossip.outer",
                f'with "{run.name}" an outer step would move the model without its tracker; leave it out',
            )

    @override
    def train(self, state: State[V], change: V, scale: float, context: Context[V]) -> Update[V]:
        combination, rate, weight = context.algebra.combination, context.learning_rate, context.weight
        zero = combination([])
        if weight <= 0 or rate <= 0:  # nothing of its own counts yet
            return Update(zero, stamp=state.stamp)
        before, tracker = state.vectors.get(GRADIENT, zero), state.vectors.get(TRACKER, zero)
        stamp = max(state.stamp, context.evictions)
        gradient = combination([(change, -1 / rate)]) if context.is_trained else before
        terms = [(gradient, 1 / weight)]
        if stamp == state.stamp:
            terms += [(before, -1 / weight), (tracker, 1.0)]
        tracker = combination(terms)
        moved = combination([(tracker, -rate)]) if context.is_trained else zero
        if context.leaves:  # once: what it is given meanwhile, it hands over as it came
            tracker, gradient = combination([(tracker, 1.0), (gradient, -1 / weight)]), zero
        return Update(moved, {TRACKER: tracker, GRADIENT: gradient}, stamp)

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        combination = context.algebra.combination
        zero, stamp = combination([]), max(state.stamp, *(other.stamp for other in received))
        terms = [(other.vectors[TRACKER], other.share) for other in received if other.stamp == stamp]
        if stamp == state.stamp:
            own = 1.0 - math.fsum(other.share for other in received)
            terms.append((state.vectors.get(TRACKER, zero), own))
        elif context.weight > 0:  # it restarts: what it has of y is its newest gradient
            terms.append((state.vectors.get(GRADIENT, zero), 1 / context.weight))
        change = weighted_mean(state, received, context.algebra).change
        return Update(change, {TRACKER: combination(terms)}, stamp)
