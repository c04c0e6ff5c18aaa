"""Which order of the nodes a measured topology goes by: one node proposes it, all go by it from a step on. Pure.

Every node tells the first of those that are there what it measured of its ways. Once that one has heard of all ways
between them, it says from which step on everybody goes by which order, a few steps ahead of the furthest node, and says
so again and again. Until then the earlier order holds, or none. Nothing is signed, nor voted on: where senders choose
their shares, sums are exact whatever each node goes by, and a lie, or a message too late, costs only speed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from covey.gossip.ledger import Incarnation
from covey.gossip.topologies.contract import LinkQuality, Topology

AHEAD = 4
"""A new order counts from so many steps after the furthest node."""
BETTER = 0.8
"""Another order is proposed where it makes the sum of transfer times at least so much shorter."""
EVERY = 30
"""So often that a node speaks, it looks whether another order would be better."""
KEPT = 8
"""Orders that are remembered: the one that counts, and those of steps to come."""
Ways = Mapping[str, LinkQuality]
Links = Mapping[tuple[str, str], LinkQuality]


@dataclass(frozen=True)
class WaysMeasured:
    """What a peer measured of its ways to others, by name."""

    peer: Incarnation
    ways: Ways


@dataclass(frozen=True)
class OrderTold:
    """A peer, the first of those that are there, says what to go by."""

    peer: Incarnation
    step: int
    """From which on it counts."""
    nodes: tuple[str, ...]


class Agreement:
    """One node's part in it.

    Args:
        topology: The run's; it goes by an order.
        names: Of all nodes of the run.
    """

    def __init__(self, topology: Topology, names: Collection[str]) -> None:
        self._topology, self._names = topology, frozenset(names)
        self._ways: dict[str, Ways] = {}
        self._orders: list[tuple[int, tuple[str, ...]]] = []
        """By the step from which they count."""
        self._told: OrderTold | None = None
        """What was taken last: said again, it is no news."""
        self._mine: OrderTold | None = None
        self._spoke = 0

    def at(self, step: int) -> tuple[str, ...]:
        """The order that counts in a step; empty: none yet."""
        return next((nodes for since, nodes in reversed(self._orders) if since <= step), ())

    def heard(self, event: WaysMeasured | OrderTold, live: Sequence[Incarnation]) -> None:
        """Take what a peer says; an order counts only if it is of the first of those that are there."""
        if isinstance(event, WaysMeasured):
            self._ways[event.peer.node] = {name: way for name, way in event.ways.items() if name in self._names}
        elif event.peer == live[0] and event != self._told and self._is_possible(event.nodes):
            self._told = event
            self._go_by(event)

    def _is_possible(self, nodes: tuple[str, ...]) -> bool:
        return bool(nodes) and len(set(nodes)) == len(nodes) and self._names.issuperset(nodes)

    def _go_by(self, order: OrderTold) -> None:
        earlier = [known for known in self._orders if known[0] < order.step]
        self._orders = [*earlier, (order.step, order.nodes)][-KEPT:]

    def says(
        self, me: Incarnation, live: Sequence[Incarnation], ways: Ways, furthest: int
    ) -> list[tuple[Incarnation, WaysMeasured | OrderTold]]:
        """What a node says now, and to whom.

        Args:
            me: The node.
            live: Who is there, this node included, in the order that all nodes share.
            ways: What it measured.
            furthest: The step of the furthest node that it knows of.
        """
        if live[0] != me:
            self._mine = None
            return [(live[0], WaysMeasured(me, ways))] if ways else []
        self._ways[me.node] = ways
        self._spoke += 1
        names = [peer.node for peer in live]
        is_due = self._mine is None or not set(names) <= set(self._mine.nodes) or self._spoke % EVERY == 0
        if is_due and (order := self._proposed(me, names, furthest)) is not None:
            self._mine = order
            self._go_by(order)
        return [(peer, self._mine) for peer in live[1:]] if self._mine is not None else []

    def _proposed(self, me: Incarnation, names: list[str], furthest: int) -> OrderTold | None:
        links: dict[tuple[str, str], LinkQuality] = {}
        for a in names:
            for b in names:
                if a != b:
                    way = self._ways.get(a, {}).get(b)
                    if way is None:
                        return None
                    links[a, b] = way
        before = self._orders[-1][1] if self._orders else ()
        order = self._topology.order(names, links)
        if self._mine is not None and set(names) <= set(before):
            went_by = [name for name in before if name in names]
            if self._topology.length(order, links) > BETTER * self._topology.length(went_by, links):
                return None
        return OrderTold(me, furthest + AHEAD, order)
