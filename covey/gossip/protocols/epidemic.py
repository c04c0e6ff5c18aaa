"""Epidemic learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Context, Received, State, Update, V, weighted_mean
from covey.gossip.protocols.receiving import Receiving
from covey.gossip.topologies.random import Random


class Epidemic(Receiving):
    """Each node sends its model to s random others; whoever gets k of them takes the mean of those and its own.

    Source: de Vos et al., "Epidemic Learning: Boosting Decentralized Learning with Randomized Communication" (NeurIPS
    2023), algorithm 1, EL-Local; s is the option `peers` of topology "random" (0: log2 n, rounded up). The mean of all
    models is kept in expectation only.
    """

    extra_models = 1.0

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        if not isinstance(run.topology, Random):
            text = f'protocol "{run.name}" draws anew in each step who gets a model; choose topology "random"'
            yield "gossip.topology", text

    @override
    def mix(self, state: State[V], received: Sequence[Received[V]], context: Context[V]) -> Update[V]:
        share = 1.0 / (len(received) + 1)
        alike = [Received(share, other.model) for other in received]
        return weighted_mean(state, alike, context.algebra)
