"""Random patterns, drawn anew in each step from the run's seed: `random` and `matching`."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field
from typing_extensions import override

from covey.gossip.graph import Graph, graph_of
from covey.gossip.topologies.contract import Swarm, Topology
from covey.options import PluginOptions
from covey.seeds import derive_seed

NEARLY_SURE = 8
"""Random graphs of so many steps together are connected but for a chance that nobody will meet."""


def generator(swarm: Swarm, purpose: str, step: int, *indices: int) -> np.random.Generator:
    """The random numbers of one step: the same on every node."""
    return np.random.default_rng(derive_seed(swarm.seed, f"gossip-{purpose}", step, *indices))


class Random(Topology):
    """Each node sends to `peers` others, drawn anew in each step.

    Source: de Vos et al., "Epidemic Learning: Boosting Decentralized Learning with Randomized Communication" (NeurIPS
    2023), EL-Local; the paper's advice is about log2 n peers.
    """

    class Options(PluginOptions):
        """Options of `random`."""

        peers: int = Field(default=0, ge=0, le=1024)
        """To how many nodes each one sends in a step; 0: log2 of their number, rounded up."""

    options: Options

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        n = len(swarm.nodes)
        peers = min(self.options.peers or math.ceil(math.log2(max(n, 2))), n - 1)
        return graph_of(
            [
                int(other) + (other >= node)
                for other in generator(swarm, "random", step, node).permutation(n - 1)[:peers]
            ]
            for node in range(n)
        )

    @override
    def period(self, swarm: Swarm) -> int:
        return NEARLY_SURE * math.ceil(math.log2(len(swarm.nodes) + 1))


class Matching(Topology):
    """Pairs, drawn anew in each step; with an odd number of nodes one stays alone."""

    symmetric = True

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        order = generator(swarm, "matching", step).permutation(len(swarm.nodes)).tolist()
        partner: dict[int, int] = {}
        for left, right in zip(order[::2], order[1::2], strict=False):
            partner[left], partner[right] = right, left
        return graph_of([partner.get(node, node)] for node in range(len(swarm.nodes)))

    @override
    def period(self, swarm: Swarm) -> int:
        return NEARLY_SURE * math.ceil(math.log2(len(swarm.nodes) + 1))
