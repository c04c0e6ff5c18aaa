"""What every topology, and all mixing weights, must keep, as tests that the author of one inherits.

class TestMine(TopologyConformance):
def make(self) -> Topology:
return Mine({"peers": 3})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction

import pytest

from covey.gossip.graph import Graph, graph_of, is_strongly_connected, is_symmetric, union
from covey.gossip.mixing import Mixing
from covey.gossip.topologies.contract import LinkQuality, Swarm, Topology

SIZES = (1, 2, 3, 5, 8, 13, 32)


def swarm_of(n: int, seed: int = 3) -> Swarm:
    """Nodes at three sites, with measured links, the farther apart the slower."""
    nodes = tuple(f"node-{i}" for i in range(n))
    sites = {node: f"site-{i % 3}" for i, node in enumerate(nodes)}
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    links = {(nodes[a], nodes[b]): LinkQuality(1e8 / (1 + abs(a - b)), 0.01 * abs(a - b)) for a, b in pairs}
    return Swarm(nodes, seed, sites, links)


class TopologyConformance(ABC):
    """Of a topology."""

    @abstractmethod
    def make(self) -> Topology:
        """The topology."""

    @pytest.mark.parametrize("n", SIZES)
    def test_every_edge_is_one_between_two_nodes(self, n: int) -> None:
        """No node sends to itself, twice to one, or to nobody."""
        for step in range(self.make().period(swarm_of(n)) + 1):
            graph = self.make().graph(step, swarm_of(n))
            assert len(graph) == n
            assert graph == graph_of(graph)
            assert all(0 <= target < n for targets in graph for target in targets)

    @pytest.mark.parametrize("n", SIZES)
    def test_over_a_period_everybody_is_connected_with_everybody(self, n: int) -> None:
        """Else the nodes would never agree."""
        topology, swarm = self.make(), swarm_of(n)
        for first in (0, 7):
            steps = range(first, first + topology.period(swarm))
            assert is_strongly_connected(union([topology.graph(step, swarm) for step in steps]))

    @pytest.mark.parametrize("n", SIZES)
    def test_it_says_whether_every_edge_goes_both_ways(self, n: int) -> None:
        """`symmetric` is what mixing weights go by."""
        if self.make().symmetric:
            assert all(is_symmetric(self.make().graph(step, swarm_of(n))) for step in range(10))

    def test_it_is_a_function_of_its_arguments(self) -> None:
        """Every node draws the same graph."""
        for step in (5, 0, 3, 5):
            assert self.make().graph(step, swarm_of(9)) == self.make().graph(step, swarm_of(9))

    def test_it_follows_who_is_alive(self) -> None:
        """With a node gone, the others are still connected."""
        whole, topology = swarm_of(8), self.make()
        left = Swarm(tuple(node for node in whole.nodes if node != "node-3"), whole.seed, whole.sites, whole.links)
        assert is_strongly_connected(union([topology.graph(step, left) for step in range(topology.period(left))]))


class MixingConformance(ABC):
    """Of mixing weights."""

    @abstractmethod
    def make(self) -> Mixing:
        """The weights."""

    def columns(self, graph: Graph, step: int) -> list[dict[int, Fraction]]:
        """The shares of each node in a step in which as many nodes are there as the graph has."""
        swarm = swarm_of(len(graph))
        return [dict(self.make().shares(graph, node, step, swarm)) for node in range(len(graph))]

    @pytest.mark.parametrize("step", [0, 1, 7, 1000])
    @pytest.mark.parametrize("graph", [((1,), (0,)), ((1, 2, 3), (0,), (0,), (0,)), ((), ()), ((1, 2), (0, 2), (0, 1))])
    def test_every_neighbour_gets_a_share_and_something_stays(self, graph: Graph, step: int) -> None:
        """Columns sum to one, with a positive diagonal, in each step."""
        for node, shares in enumerate(self.columns(graph, step)):
            assert set(shares) == set(graph[node])
            assert all(share > 0 for share in shares.values())
            assert sum(shares.values()) < 1

    @pytest.mark.parametrize("step", [0, 1, 7, 1000])
    def test_rows_sum_to_one_where_it_says_so(self, step: int) -> None:
        """On a graph whose nodes have different degrees."""
        columns = self.columns(graph_of([(1, 2, 3), (0, 2), (0, 1), (0,)]), step)
        rows = [
            1 - sum(columns[row].values()) + sum(column.get(row, Fraction(0)) for column in columns) for row in range(4)
        ]
        if self.make().doubly_stochastic:
            assert rows == [1, 1, 1, 1]

    def test_shares_are_a_function_of_the_arguments(self) -> None:
        """Every node comes to the same, in whatever order steps and swarms come."""
        graphs = [complete_of(n) for n in (3, 8)]
        cases = [(graph, step) for graph in graphs for step in (5, 0, 3)]
        assert [self.columns(*case) for case in cases] == [self.columns(*case) for case in reversed(cases)][::-1]


def complete_of(n: int) -> Graph:
    """Everybody sends to everybody."""
    return graph_of(range(n) for _ in range(n))
