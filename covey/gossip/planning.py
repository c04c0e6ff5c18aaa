"""What a step's topology and mixing weights mean for one node: who gets what share, and who sends to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache, partial

from covey.gossip.agreement import Agreement
from covey.gossip.graph import Graph, in_neighbours, is_symmetric
from covey.gossip.ledger import Incarnation
from covey.gossip.mixing import Mixing, Uniform
from covey.gossip.push_sum.events import Planned, Share
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.topologies.contract import LinkQuality, Swarm, Topology
from covey.gossip.topologies.regular import Exponential


class Planner:
    """Answers `Plan`, from a run's topology and mixing weights.

    Args:
        topology: Of the run.
        mixing: Of the run.
        seed: The run's.
        sites: The site of a node, where one is known.
        links: What is measured of (from, to); looked up anew for each step.
        agreement: On which order of the nodes they agree; None: the topology needs none.
        weighs: Who says what a model counts for. A receiver's weights are its row of the mixing weights' matrix where
            rows sum to one; else the same for every sender, and for itself.
    """

    def __init__(
        self,
        topology: Topology,
        mixing: Mixing,
        seed: int,
        sites: Mapping[str, str] | None = None,
        links: Mapping[tuple[str, str], LinkQuality] | None = None,
        *,
        agreement: Agreement | None = None,
        weighs: Weighs = "mass",
    ) -> None:
        self._topology, self._mixing, self._seed, self._weighs = topology, mixing, seed, weighs
        self._sites, self._links = sites or {}, links if links is not None else {}
        self.agreement = agreement
        self._graph = lru_cache(maxsize=8)(self._drawn)
        self._averaging: Planner | None = None

    @property
    def averaging(self) -> Planner:
        """The planner of steps that only average: one-peer exponential, whatever the run's topology is."""
        self._averaging = self._averaging or Planner(Exponential(), Uniform(), self._seed)
        return self._averaging

    def plan(self, step: int, me: Incarnation, peers: Sequence[Incarnation]) -> Planned:
        """A node's shares and senders in a step.

        Args:
            step: Counts from 0.
            me: The node.
            peers: Who is there, this node included, in the order that all nodes share.

        Raises:
            ValueError: The mixing weights need a topology whose edges go both ways, and this one's do not.
        """
        order = self.agreement.at(step) if self.agreement is not None else ()
        nodes = tuple(peer.node for peer in peers)
        graph, sources, swarm = self._graph(step, nodes, tuple(self._links.items()), order)
        if self._mixing.needs_symmetric and not is_symmetric(graph):
            raise ValueError(f"the edges of {type(self._topology).__name__} do not all go both ways")
        place = list(peers).index(me)
        shares_of = partial(self._mixing.shares, graph, step=step, swarm=swarm)
        shares = shares_of(place)
        weights = self._row(sources[place], place, shares_of) if self._weighs == "receiver" else {}
        senders = tuple(peers[source] for source in sources[place])
        return Planned(step, _named(shares, peers), senders, _named(weights, peers))

    def _row(
        self, sources: Sequence[int], place: int, shares_of: Callable[[int], Mapping[int, Fraction]]
    ) -> dict[int, Fraction]:
        """What each sender's model counts for at a receiver."""
        if self._mixing.doubly_stochastic:
            return {source: shares_of(source)[place] for source in sources}
        return dict.fromkeys(sources, Fraction(1, len(sources) + 1))

    def _drawn(
        self,
        step: int,
        nodes: tuple[str, ...],
        links: tuple[tuple[tuple[str, str], LinkQuality], ...],
        order: tuple[str, ...],
    ) -> tuple[Graph, Graph, Swarm]:
        swarm = Swarm(nodes, self._seed, self._sites, dict(links), order)
        graph = self._topology.graph(step, swarm)
        return graph, in_neighbours(graph), swarm


def _named(shares: Mapping[int, Fraction], peers: Sequence[Incarnation]) -> tuple[Share, ...]:
    return tuple(Share(peers[place], share.numerator, share.denominator) for place, share in sorted(shares.items()))
