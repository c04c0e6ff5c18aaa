"""Momentum across the steps of a gossip run: each node's own, one that follows what exchanges do, or a slow one.

What a step's local training did to the model, divided by minus its learning rate, counts as one gradient g: with one
local step and plain SGD it is one. The momentum m has the unit of gradients, so a new learning rate acts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeVar

from typing_extensions import override

from covey.gossip.protocols.contract import Context, State, Update
from covey.spec import TrainingSection

V = TypeVar("V")
MOMENTUM = "momentum"
ANCHOR, SLOW = "anchor", "slow-momentum"


def has_heavy_ball(training: TrainingSection) -> bool:
    """Whether the local optimizer has a momentum of its own, heavy ball or Nesterov."""
    return training.optimizer == "momentum" and training.momentum > 0


class Momentum(Protocol):
    """What stands between a node's training and its protocol."""

    keeps: ClassVar[tuple[str, ...]] = (MOMENTUM,)

    def step(self, state: State[V], change: V, context: Context[V]) -> Update[V]:
        """What training did becomes the step that the protocol takes, and the new momentum.

        Args:
            state: Before the step.
            change: What training did to the model.
            context: The step.
        """
        ...

    def mixed(self, state: State[V], change: V, context: Context[V]) -> Mapping[str, V]:
        """The new momentum after an exchange.

        Args:
            state: Before it.
            change: What the exchange does to the model.
            context: The step.
        """
        ...


class LocalMomentum(Momentum):
    """m <- beta m + g; x <- x - lr m, or with Nesterov x - lr (g + beta m). Each node has its own m, never sent.

    Source: the momentum of stochastic gradient push (Assran et al., ICML 2019, algorithm 1 with the authors' code).

    Args:
        beta: The factor on the momentum.
        nesterov: Whether it looks ahead.
    """

    def __init__(self, beta: float, *, nesterov: bool) -> None:
        self._beta, self._nesterov = beta, nesterov

    @override
    def step(self, state: State[V], change: V, context: Context[V]) -> Update[V]:
        rate, combination = context.learning_rate, context.algebra.combination
        if rate <= 0:
            return Update(change)
        before = state.vectors.get(MOMENTUM, combination([]))
        after = combination([(before, self._beta), (change, -1 / rate)])
        ahead = after if self._nesterov else before
        return Update(combination([(change, 1.0), (ahead, -rate * self._beta)]), {MOMENTUM: after})

    @override
    def mixed(self, state: State[V], change: V, context: Context[V]) -> Mapping[str, V]:
        return {}


class QuasiGlobalMomentum(Momentum):
    """m follows what step and exchange together do to the model: what a node sees of everybody's direction.

    u = g + beta m; x <- x - lr u, with Nesterov x - lr (g + beta u); after the exchange d = (z_before - z_after) / lr
    and m <- beta m + (1 - beta) d, where z_before is the model before the step. Nothing more is sent. Source: Lin et
    al., "Quasi-Global Momentum" (ICML 2021), with the authors' code. On push-sum d is taken on the de-biased z.
    Here m moves in two parts, by the step itself and by each exchange, so that nothing has to be remembered in
    between; and a node's own step counts as if its scale were 1, for one with little mass would feed its own momentum.

    Args:
        beta: The factor on the momentum.
        nesterov: Whether it looks ahead.
    """

    def __init__(self, beta: float, *, nesterov: bool) -> None:
        self._beta, self._nesterov = beta, nesterov

    @override
    def step(self, state: State[V], change: V, context: Context[V]) -> Update[V]:
        rate, beta, combination = context.learning_rate, self._beta, context.algebra.combination
        if rate <= 0:
            return Update(change)
        before = state.vectors.get(MOMENTUM, combination([]))
        own, past = (1 + beta, -rate * beta * beta) if self._nesterov else (1.0, -rate * beta)
        moved = combination([(change, own), (before, past)])
        return Update(moved, {MOMENTUM: combination([(before, beta), (moved, -(1 - beta) / rate)])})

    @override
    def mixed(self, state: State[V], change: V, context: Context[V]) -> Mapping[str, V]:
        rate, combination = context.learning_rate, context.algebra.combination
        if rate <= 0:
            return {}
        before = state.vectors.get(MOMENTUM, combination([]))
        return {MOMENTUM: combination([(before, 1.0), (change, -(1 - self._beta) / rate)])}


class SlowMomentum:
    """u <- beta u + (a - x) / lr; x <- a - rate lr u; a <- x, every `every` steps, after local training.

    Source: Wang et al., "SlowMo" (ICLR 2020), algorithm 1, without its line of exact averaging, and with the exchange
    at the beginning of an inner step where the paper has it at its end. Each node has its own a and u. It moves z, and
    never w: on push-sum that is x += w dz. While weights are equal, the mean of the models moves as by one a and u.

    Args:
        every: Steps from one slow step to the next.
        beta: The factor on the slow momentum.
        rate: The slow learning rate; with rate 1 and beta 0 nothing changes.
    """

    keeps: ClassVar[tuple[str, ...]] = (ANCHOR, SLOW)

    def __init__(self, every: int, beta: float, rate: float) -> None:
        self._every, self._beta, self._rate = every, beta, rate

    def after(self, state: State[V], update: Update[V], context: Context[V]) -> Update[V]:
        """What a step does to the model, with the slow step where one is due.

        Args:
            state: Before the step; without an anchor its model is the first one.
            update: What the step comes to without it.
            context: The step.
        """
        rate, combination = context.learning_rate, context.algebra.combination
        anchor = state.vectors.get(ANCHOR, state.model)
        slow = state.vectors.get(SLOW, combination([]))
        if (context.step + 1) % self._every or rate <= 0:
            first = {} if ANCHOR in state.vectors else {ANCHOR: anchor, SLOW: slow}
            return Update(update.change, {**update.vectors, **first}, update.stamp)
        slow = combination(
            [(slow, self._beta), (anchor, 1 / rate), (state.model, -1 / rate), (update.change, -1 / rate)]
        )
        back = combination([(anchor, 1.0), (state.model, -1.0), (slow, -self._rate * rate)])
        newest = combination([(anchor, 1.0), (slow, -self._rate * rate)])
        return Update(back, {**update.vectors, ANCHOR: newest, SLOW: slow}, update.stamp)
