"""Nearest-neighbour averaging."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from covey.gossip.protocols.contract import Context, Received, State, Update, V, weighted_mean
from covey.gossip.protocols.receiving import Robust


class NearestNeighbourAveraging(Robust):
    """The mean of those n - f of n models, the node's own among them, that are nearest to its own.

    Source: Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead" (ICML 2023, arXiv
    2209.10931), nearest-neighbour averaging (NNA); there n is the number of all nodes, here of those whose models a
    node has in a step. Of equal distances the one that is first in the order of names is nearer.

    Without reliable broadcast, which Covey has not, the paper's bound asks for n >= 6f + 1: 6f neighbours of each node.
    It is proven for the complete graph, and takes models that do not come for Byzantine ones.
    """

    least = (6, 0)

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        distances = context.algebra.distances(state.model, [other.model for other in received])
        nearest = sorted(range(len(received)), key=lambda place: distances[place])
        others = sorted(nearest[: max(len(received) - self.options.f, 0)])
        share = 1.0 / (len(others) + 1)
        return weighted_mean(state, [Received(share, received[place].model) for place in others], context.algebra)
