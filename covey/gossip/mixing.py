"""Mixing weights: what part of its mass a node gives to each of its out-neighbours. The rest stays with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from typing_extensions import override

from covey.gossip.graph import Graph
from covey.gossip.topologies.contract import Swarm
from covey.plugins import Kind, Pluggable


class Mixing(Pluggable):
    """Mixing weights (`[gossip.mixing] name`): the columns of a matrix, each node's own; so columns always sum to one.

    A matrix of a step, and of those who are there in it: it may be another one in the next step.

    Class attributes:
        needs_symmetric: Whether every edge has to go both ways.
        doubly_stochastic: Whether rows sum to one as well, in each step, so that averages without a push-sum weight are
            right.
    """

    needs_symmetric: ClassVar[bool] = False
    doubly_stochastic: ClassVar[bool] = False

    @abstractmethod
    def shares(self, graph: Graph, node: int, step: int, swarm: Swarm) -> Mapping[int, Fraction]:
        """The share of each out-neighbour, by position: above 0, in all below 1; from these arguments only.

        Args:
            graph: The step's.
            node: Whose shares, by position.
            step: Counts from 0.
            swarm: Who is there in the step; positions are indices into its `nodes`.
        """


class Uniform(Mixing):
    """1 / (out-degree + 1) for each out-neighbour and for the node itself."""

    @override
    def shares(self, graph: Graph, node: int, step: int, swarm: Swarm) -> dict[int, Fraction]:
        return dict.fromkeys(graph[node], Fraction(1, len(graph[node]) + 1))


class MetropolisHastings(Mixing):
    """1 / (1 + the larger of both degrees) along an edge that goes both ways: symmetric, so doubly stochastic.

    Source: Xiao and Boyd, "Fast linear iterations for distributed averaging" (2004), section 4 ("Metropolis-Hastings").
    """

    needs_symmetric = True
    doubly_stochastic = True

    @override
    def shares(self, graph: Graph, node: int, step: int, swarm: Swarm) -> dict[int, Fraction]:
        own = len(graph[node])
        return {other: Fraction(1, 1 + max(own, len(graph[other]))) for other in graph[node]}


MIXINGS = Kind("mixing", "covey.mixings", Mixing, "gossip.mixing")
