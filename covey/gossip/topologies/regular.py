"""Fixed patterns of positions: exponential, ring, complete."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from covey.gossip.graph import Graph, graph_of
from covey.gossip.topologies.contract import Swarm, Topology
from covey.options import PluginOptions


def distances(n: int, base: int = 2) -> tuple[int, ...]:
    """1, base, base^2, ... below n: the strides of a period of `exponential`; at least one."""
    powers = [1]
    while powers[-1] * base < n:
        powers.append(powers[-1] * base)
    return tuple(powers)


class Exponential(Topology):
    """Distances that are powers: in step k a node sends to those j * (peers + 1) ** (k mod L) further on, j = 1..peers.

    L is the number of digits of n - 1 in base peers + 1. With one peer these are the distances 1, 2, 4, ...: after L
    steps everybody has the exact mean where n is a power of two (of peers + 1). Source: Assran et al., "Stochastic
    Gradient Push for Distributed Deep Learning" (ICML 2019), section 5 and the authors' code
    (`NPeerDynamicDirectedExponentialGraph`).
    """

    class Options(PluginOptions):
        """Options of `exponential`."""

        peers: int = Field(default=1, ge=1, le=64)
        """To how many nodes each one sends in a step."""

    options: Options
    circulant = True

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        n, peers = len(swarm.nodes), self.options.peers
        strides = distances(n, peers + 1)
        stride = strides[step % len(strides)]
        return graph_of([(node + j * stride) % n for j in range(1, peers + 1)] for node in range(n))

    @override
    def period(self, swarm: Swarm) -> int:
        return len(distances(len(swarm.nodes), self.options.peers + 1))


class Ring(Topology):
    """Each node sends to the next one, or to both of its neighbours."""

    class Options(PluginOptions):
        """Options of `ring`."""

        directions: Literal[1, 2] = 2
        """1: to the next node only; 2: to the next and to the one before."""

    options: Options
    circulant = True

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        n, strides = len(swarm.nodes), (1, -1)[: self.options.directions]
        return graph_of([(node + stride) % n for stride in strides] for node in range(n))

    @override
    def period(self, swarm: Swarm) -> int:
        return 1


class Complete(Topology):
    """Each node sends to every other one."""

    symmetric = circulant = True

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        n = len(swarm.nodes)
        return graph_of(range(n) for _ in range(n))

    @override
    def period(self, swarm: Swarm) -> int:
        return 1
