"""The trimmed mean of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from covey.gossip.protocols.contract import Context, Received, State, Update, V
from covey.gossip.protocols.receiving import Robust


class NeighboursTrimmedMean(Robust):
    """In each coordinate the mean of a node's and its neighbours' values without the f least and the f greatest.

    Source of the rule: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (ICML
    2018), definition 2; among neighbours: Yang and Bajwa, "ByRDiE" (IEEE TSIPN 5(4), 2019), from memory. Where too few
    models came to trim so many, the node keeps its own.
    """

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        algebra, f = context.algebra, self.options.f
        if len(received) < 2 * f:
            return Update(algebra.combination([]))
        mean = algebra.trimmed_mean([state.model, *(other.model for other in received)], f)
        return Update(algebra.combination([(mean, 1.0), (state.model, -1.0)]))
