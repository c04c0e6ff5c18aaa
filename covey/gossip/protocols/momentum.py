"""Momentum across the steps of a gossip run: each node's own, or one that follows what exchanges do to its model.

What a step's local training did to the model, divided by minus its learning rate, counts as one gradient g: with one
local step and plain SGD it is one. The momentum m has the unit of gradients, so a new learning rate acts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeVar

from typing_extensions import override

from covey.gossip.protocols.contract import Context, State, Update

V = TypeVar("V")
MOMENTUM = "momentum"


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
