"""Worker momentum: what a node sends is a moving average of its vectors.

m = (1 - beta) g + beta m', where m' is that of the last update that was accepted; the first one is (1 - beta) g. As in
Karimireddy, He and Jaggi, "Learning from history for Byzantine robust optimization" (ICML 2021, arXiv 2012.10333).
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from covey.outgoing.contract import LocalState, Stage
from covey.vectors import LinearCombination, Vector

MOMENTUM = "momentum"


class WorkerMomentum(Stage):
    """Averages with what was sent before.

    Args:
        beta: The part of the average before, in (0, 1).
    """

    keeps: ClassVar[tuple[str, ...]] = (MOMENTUM,)

    def __init__(self, beta: float) -> None:
        self._beta = beta

    @override
    def leave(self, vector: Vector, state: LocalState) -> Vector:
        old, beta = state.before(MOMENTUM), self._beta
        terms = [(vector, 1 - beta)] if old is None else [(vector, 1 - beta), (old, beta)]
        return state.keep(MOMENTUM, LinearCombination(terms))
