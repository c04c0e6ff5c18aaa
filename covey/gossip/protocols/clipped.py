"""Clipped gossip."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from covey.gossip.protocols.contract import Context, Received, State, Update, V, weighted_mean
from covey.gossip.protocols.receiving import Robust, RobustOptions
from covey.spec.sections import Positive


class ClippedGossip(Robust):
    """x_i += sum_j W_ij clip(x_j - x_i, tau_i): what a neighbour can move a node by is bounded by tau_i.

    Source: He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip" (arXiv 2202.01545),
    equation for "ClippedGossip". tau_i is the option `radius`, or the distance of the furthest neighbour without the f
    furthest (with f = 1 what the authors' code has by default); where no more than f came, it is 0.
    """

    class Options(RobustOptions):
        """Options of `clipped-gossip`."""

        radius: Positive | None = None
        """tau, in the Euclidean norm; default: by the distances of the neighbours."""

    options: Options
    needs_doubly_stochastic = True

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        distances = context.algebra.distances(state.model, [other.model for other in received])
        radius = self.options.radius
        if radius is None:
            radius = sorted(distances, reverse=True)[self.options.f] if len(distances) > self.options.f else 0.0
        clipped = [
            Received(other.share * min(1.0, radius / distance) if distance else other.share, other.model)
            for other, distance in zip(received, distances, strict=True)
        ]
        return weighted_mean(state, clipped, context.algebra)
