"""The contract of topologies: a graph for each step, as a function of who is alive."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from covey.gossip.graph import Graph
from covey.plugins import Kind, Pluggable


@dataclass(frozen=True)
class LinkQuality:
    """What a node measured of the way to a peer."""

    bytes_per_s: float
    round_trip_s: float


@dataclass(frozen=True)
class Swarm:
    """Who takes part at a step, as one node sees it.

    Attributes:
        nodes: The names of those who are alive, in the order of the run's roster. A position is an index into this.
        seed: The run's.
        sites: The site of a node, where one is known.
        links: What was measured of (from, to).
        order: What nodes agreed to go by, of those names that were there then; empty: nothing.
    """

    nodes: tuple[str, ...]
    seed: int = 0
    sites: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[tuple[str, str], LinkQuality] = field(default_factory=dict)
    order: tuple[str, ...] = ()


class Topology(Pluggable):
    """Who sends to whom (`[gossip.topology] name`).

    Nodes may see different swarms for a while. Push-sum keeps its sums all the same, because each sender chooses its
    own shares; what needs agreement (pairs, symmetric weights) makes sure of it with the peer.

    Class attributes:
        symmetric: Whether every edge goes both ways at each step, whatever the options.
        agrees: Whether nodes agree on an order of theirs, which the graph goes by (`Swarm.order`).
        circulant: Whether edges look the same from each node: then equal weights sum to one in rows as well.
    """

    symmetric: ClassVar[bool] = False
    agrees: ClassVar[bool] = False
    circulant: ClassVar[bool] = False

    def order(self, nodes: Sequence[str], links: Mapping[tuple[str, str], LinkQuality]) -> tuple[str, ...]:
        """The best order of nodes, where all ways between them were measured."""
        return tuple(nodes)

    def length(self, order: Sequence[str], links: Mapping[tuple[str, str], LinkQuality]) -> float:
        """How much an order costs, to compare it with others; 0: they are all alike."""
        return 0.0

    @abstractmethod
    def graph(self, step: int, swarm: Swarm) -> Graph:
        """The out-neighbours of every node at a step; from these arguments only, the same on every node.

        Args:
            step: Counts from 0.
            swarm: One node or more.
        """

    @abstractmethod
    def period(self, swarm: Swarm) -> int:
        """After how many steps the edges of all of them together connect everybody with everybody, both ways.

        For a random topology: after how many steps they nearly surely do.
        """


TOPOLOGIES = Kind("topology", "covey.topologies", Topology, "gossip.topology")
