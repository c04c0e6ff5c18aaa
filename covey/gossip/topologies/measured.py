"""An order of the nodes in which neighbours have fast links, from what they measured of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pydantic import Field
from typing_extensions import override

from covey.gossip.graph import Graph, graph_of
from covey.gossip.topologies.contract import LinkQuality, Swarm, Topology
from covey.gossip.topologies.regular import Exponential, Ring
from covey.options import PluginOptions

Costs = tuple[tuple[float, ...], ...]
TURNS_AT_MOST = 20
"""Passes of 2-opt; a few hundred nodes are done in fewer."""


class Measured(Topology):
    """A ring, or an exponential graph, over the order that makes the sum of neighbours' transfer times small.

    The order starts at the first node, goes on to the nearest one that is left, and is then improved by turning parts
    of it round while that helps (2-opt). A link that nobody measured counts as slow as the slowest that was.

    While nodes have agreed on no order that has all of them, and nothing else is known of links, each node sends to
    every other one in turn, one a step: so all ways are measured, both of each link.
    """

    class Options(PluginOptions):
        """Options of `measured`."""

        shape: Literal["ring", "exponential"] = "ring"
        """What is laid over the order."""
        transfer_bytes: int = Field(default=100_000_000, ge=1)
        """For how large a transfer links are compared: a small one asks for short round trips, a large one for
        bandwidth."""

    agrees = True
    options: Options

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        if not self._is_known(swarm):
            n = len(swarm.nodes)
            return graph_of([(node + 1 + step % (n - 1)) % n] if n > 1 else [] for node in range(n))
        if _is_agreed(swarm):
            places = {name: place for place, name in enumerate(swarm.nodes)}
            order = tuple(places[name] for name in swarm.order if name in places)
        else:
            order = best_order(_costs(swarm, self.options.transfer_bytes))
        ordered = Swarm(tuple(swarm.nodes[position] for position in order), swarm.seed)
        laid = self._shape().graph(step, ordered)
        targets: list[tuple[int, ...]] = [()] * len(order)
        for place, position in enumerate(order):
            targets[position] = tuple(sorted(order[target] for target in laid[place]))
        return tuple(targets)

    @override
    def period(self, swarm: Swarm) -> int:
        return self._shape().period(swarm) if self._is_known(swarm) else max(1, len(swarm.nodes) - 1)

    @override
    def order(self, nodes: Sequence[str], links: Mapping[tuple[str, str], LinkQuality]) -> tuple[str, ...]:
        costs = _costs(Swarm(tuple(nodes), links=links), self.options.transfer_bytes)
        return tuple(nodes[position] for position in best_order(costs))

    @override
    def length(self, order: Sequence[str], links: Mapping[tuple[str, str], LinkQuality]) -> float:
        costs = _costs(Swarm(tuple(order), links=links), self.options.transfer_bytes)
        return sum(costs[place][(place + 1) % len(order)] for place in range(len(order)))

    @staticmethod
    def _is_known(swarm: Swarm) -> bool:
        return bool(swarm.links) or _is_agreed(swarm)

    def _shape(self) -> Topology:
        return Ring({"directions": 1}) if self.options.shape == "ring" else Exponential()


def _is_agreed(swarm: Swarm) -> bool:
    """Whether nodes agreed on an order that has all who are there."""
    return set(swarm.nodes) <= set(swarm.order)


def transfer_s(link: LinkQuality, size_bytes: int) -> float:
    """How long a transfer takes, in seconds."""
    return link.round_trip_s + size_bytes / max(link.bytes_per_s, 1.0)


def _costs(swarm: Swarm, size_bytes: int) -> Costs:
    """Of the slower direction between each two nodes."""
    measured = {pair: transfer_s(link, size_bytes) for pair, link in swarm.links.items()}
    slowest = max(measured.values(), default=1.0)
    return tuple(
        tuple(max(measured.get((a, b), slowest), measured.get((b, a), slowest)) for b in swarm.nodes)
        for a in swarm.nodes
    )


@lru_cache(maxsize=16)
def best_order(costs: Costs) -> tuple[int, ...]:
    """A short tour through all positions, by nearest neighbour and 2-opt.

    Args:
        costs: Of going from one position to another, the same in both directions.
    """
    order = _nearest(costs)
    for _ in range(TURNS_AT_MOST):
        if not _improved(order, costs):
            break
    return tuple(order)


def _nearest(costs: Costs) -> list[int]:
    order, left = [0] if costs else [], set(range(1, len(costs)))
    while left:
        order.append(min(left, key=lambda position: (costs[order[-1]][position], position)))
        left.discard(order[-1])
    return order


def _improved(order: list[int], costs: Costs) -> bool:
    """Turn round each part of the tour whose turning makes it shorter; whether any did."""
    improved, n = False, len(order)
    for start in range(1, n - 1):
        for end in range(start + 1, n):
            before, first, last, after = order[start - 1], order[start], order[end], order[(end + 1) % n]
            change = costs[before][last] + costs[first][after] - costs[before][first] - costs[last][after]
            if change < -1e-9 * costs[before][first]:
                order[start : end + 1] = order[start : end + 1][::-1]
                improved = True
    return improved
