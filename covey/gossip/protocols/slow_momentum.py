"""Slow momentum: every so many steps a node's whole way since the last time becomes one step with momentum."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from covey.gossip.protocols.contract import Context, State, Update

V = TypeVar("V")
ANCHOR, SLOW = "anchor", "slow-momentum"


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
