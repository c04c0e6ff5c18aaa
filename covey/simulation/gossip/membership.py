"""What happens to nodes in a simulated run: they die and are evicted, or leave in order."""

from __future__ import annotations

from collections.abc import Mapping

from covey.gossip.ledger import Incarnation, InEdge
from covey.gossip.push_sum import events as ev
from covey.simulation.gossip.peer import VirtualPeer
from covey.simulation.gossip.plan import Network
from covey.simulation.gossip.timeline import Timeline

SUSPECTED_AFTER, EVICTED_AFTER = 2.0, 5.0
"""Virtual time from a death until peers suspect it, and until it is evicted."""
BEAT = 0.5
"""Virtual time between two signs of life, where messages can be lost, and from the first batch on that is refused."""


class Fates:
    """Brings about what the plan says.

    Args:
        timeline: Virtual time.
        network: The plan's.
        peers: Who is there.
    """

    def __init__(self, timeline: Timeline, network: Network, peers: Mapping[Incarnation, VirtualPeer]) -> None:
        self._timeline, self._network, self._peers = timeline, network, peers
        self._asked: set[Incarnation] = set()
        self._is_watching = False
        self.gone: list[Incarnation] = []
        """Who died."""

    def watch(self) -> None:
        """Let signs of life be given from now on: somebody may wait for what does not come."""
        if not self._is_watching:
            self._is_watching = True
            self._timeline.after(BEAT, self._beat)

    def _beat(self, _: object) -> None:
        for peer in self._peers.values():
            if peer.is_up:
                peer.beat()
        self._timeline.after(BEAT, self._beat)

    def look(self, peer: VirtualPeer) -> None:
        """A node has begun a step: see whether its time has come."""
        name, step = peer.me.node, peer.step
        if peer.is_up and step >= self._network.dies.get(name, step + 1):
            self._die(peer)
        elif peer.me not in self._asked and step >= self._network.leaves.get(name, step + 1):
            self._asked.add(peer.me)
            peer.take(ev.LeaveAsked(self._timeline.now))

    def _die(self, dead: VirtualPeer) -> None:
        dead.die()
        self.gone.append(dead.me)
        self._timeline.after(SUSPECTED_AFTER, lambda _: self._tell(ev.PeerSuspected(dead.me, self._timeline.now)))
        self._timeline.after(EVICTED_AFTER, lambda _: self._tell(ev.PeerEvicted(dead.me, self._timeline.now)))

    def _tell(self, event: ev.PeerSuspected | ev.PeerEvicted) -> None:
        for peer in list(self._peers.values()):
            peer.take(event)

    def left(self, leaver: VirtualPeer) -> None:
        """A node has handed over all it had: everybody knows what of theirs it had."""
        for me, peer in self._peers.items():
            applied = leaver.ledger.into.get(me, InEdge()).sequence
            if peer is not leaver:
                peer.take(ev.PeerLeft(leaver.me, applied, self._timeline.now))
