"""What happens to nodes in a simulated run: they die, are killed and come back, join, leave, and are cut off."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from covey.gossip.ledger import Incarnation, InEdge
from covey.gossip.push_sum import events as ev
from covey.seeds import derive_seed
from covey.simulation.gossip.faults import Network, Partition
from covey.simulation.gossip.peer import VirtualPeer
from covey.simulation.gossip.timeline import Timeline

SUSPECTED_AFTER, EVICTED_AFTER = 2.0, 5.0
"""Virtual time of silence until peers suspect a node, and from a death for good until it is evicted."""
DOWN = (0.5, 4.5)
"""Least and most virtual time that a node is away that churn killed: some are suspected meanwhile, and some not."""
BEAT = 0.5
"""Virtual time between two signs of life, where somebody may wait for what is only said again."""
Notice = Callable[[Incarnation], ev.Event]
"""What a node is told of another one that joined, left or was evicted."""


class Fates:
    """Brings about what the plan says.

    Args:
        timeline: Virtual time.
        network: The plan's.
        peers: Who is there; who joins is added.
        seed: The run's.
        joiner: Makes a node that joins, of this name, and its model as far as it can be had from another one.
    """

    def __init__(
        self,
        timeline: Timeline,
        network: Network,
        peers: dict[Incarnation, VirtualPeer],
        seed: int,
        joiner: Callable[[str], VirtualPeer],
    ) -> None:
        self._timeline, self._network, self._peers = timeline, network, peers
        self._seed, self._joiner = seed, joiner
        self._asked: set[Incarnation] = set()
        self._struck: set[Incarnation] = set()
        """Who died when the plan said so: it does not twice."""
        self._down: dict[Incarnation, float] = {}
        """Who was killed and will be back, and since when it is away."""
        self._coming: list[VirtualPeer] = []
        """Who begins once it has heard those that are there."""
        self._notices: list[Notice] = []
        self._is_watching = False
        self.gone: list[Incarnation] = []
        """Who died for good."""

    @property
    def is_over(self) -> bool:
        """Whether everybody is through, and nobody is away who will be back."""
        return not self._down and all(peer.reason for peer in self._peers.values())

    def begin(self) -> None:
        """Let what the plan says happen at its time."""
        network, later = self._network, self._timeline.after
        if network.needs_beats:
            self.watch()
        for name, at in sorted(network.joins.items()):
            later(at, partial(self._join, name))
        for cut in network.partitions:
            later(cut.since + SUSPECTED_AFTER, partial(self._suspect_across, cut))
        for place, me in enumerate(sorted(self._peers)) if network.churn else ():
            self._strike_later(me, random.Random(derive_seed(self._seed, "gossip-churn", place)))

    def watch(self) -> None:
        """Let signs of life be given from now on: somebody may wait for what does not come."""
        if not self._is_watching:
            self._is_watching = True
            self._timeline.after(BEAT, self._beat)

    def _beat(self, _: object) -> None:
        for peer in self._coming[:]:
            if not peer.is_up:
                self._coming.remove(peer)
            elif peer.has_heard(self._heard_by(peer)):
                self._coming.remove(peer)
                peer.begin()
        for peer in list(self._peers.values()):
            if peer.is_up and peer.is_ready:
                peer.beat()
        self._timeline.after(BEAT, self._beat)

    def _heard_by(self, peer: VirtualPeer) -> list[Incarnation]:
        """Whom a node can hear now."""
        now, is_cut = self._timeline.now, self._network.is_cut
        others = [(me, other) for me, other in self._peers.items() if other is not peer]
        up = [me for me, other in others if other.is_up and other.is_ready]
        return [me for me in up if not is_cut(me.node, peer.me.node, now)]

    def look(self, peer: VirtualPeer) -> None:
        """A node has begun a step: see whether its time has come."""
        me, name, step = peer.me, peer.me.node, peer.step
        if peer.is_up and me not in self._struck and step >= self._network.dies.get(name, step + 1):
            self._struck.add(me)
            back = self._network.returns.get(name)
            if back is None:
                self._die(peer)
            else:
                self._kill(peer, max(back - self._timeline.now, 0.0))
        elif me not in self._asked and step >= self._network.leaves.get(name, step + 1):
            self._asked.add(me)
            peer.take(ev.LeaveAsked(self._timeline.now))

    # -- who dies, and who comes back -------------------------------------------------------------------------------

    def _die(self, dead: VirtualPeer) -> None:
        dead.die()
        self.gone.append(dead.me)
        self._timeline.after(SUSPECTED_AFTER, lambda _: self._tell(ev.PeerSuspected(dead.me, self._timeline.now)))
        self._timeline.after(EVICTED_AFTER, lambda _: self._notify(lambda _: self._evicted(dead.me)))

    def _evicted(self, me: Incarnation) -> ev.Event:
        return ev.PeerEvicted(me, self._timeline.now)

    def _kill(self, peer: VirtualPeer, pause: float) -> None:
        """A node ends without a word, and is started again after a pause."""
        peer.stop()
        self._down[peer.me] = since = self._timeline.now
        self._timeline.after(SUSPECTED_AFTER, partial(self._miss, peer.me, since))
        self._timeline.after(pause, partial(self._come_back, peer))

    def _miss(self, me: Incarnation, since: float, _: object) -> None:
        if self._down.get(me) == since:
            self._tell(ev.PeerSuspected(me, self._timeline.now))

    def _come_back(self, peer: VirtualPeer, _: object) -> None:
        del self._down[peer.me]
        peer.restore()
        if peer.is_new and peer not in self._coming:
            self._coming.append(peer)
        elif not peer.is_new:
            peer.begin()
        for notice in self._notices:
            peer.take(notice(peer.me))
        if peer.me in self._asked:
            peer.take(ev.LeaveAsked(self._timeline.now))
        self._timeline.after(SUSPECTED_AFTER, partial(self._miss_unheard, peer))

    def _miss_unheard(self, peer: VirtualPeer, _: object) -> None:
        """Who was not heard since a node's restart counts as away, as `GossipActor` has it."""
        for name in peer.executor.machine.exchange.unheard():
            peer.take(ev.PeerSuspected(name, self._timeline.now))

    def _strike_later(self, me: Incarnation, draw: random.Random) -> None:
        self._timeline.after(draw.expovariate(self._network.churn), partial(self._strike, me, draw))

    def _strike(self, me: Incarnation, draw: random.Random, _: object) -> None:
        peer = self._peers[me]
        if not peer.reason:
            self._kill(peer, draw.uniform(*DOWN))
        if me in self._down or not peer.reason:
            self._strike_later(me, draw)

    # -- who comes, leaves, and is cut off --------------------------------------------------------------------------

    def _join(self, name: str, _: object) -> None:
        joined = self._joiner(name)
        self._peers[joined.me] = joined
        self._coming.append(joined)
        for notice in self._notices:
            joined.take(notice(joined.me))
        self._notify(lambda _: ev.PeerJoined(joined.me, joined.ledger.minted, self._timeline.now))

    def left(self, leaver: VirtualPeer) -> None:
        """A node has handed over all it had: everybody knows what of theirs it had."""

        def notice(me: Incarnation) -> ev.Event:
            return ev.PeerLeft(leaver.me, leaver.ledger.into.get(me, InEdge()).sequence, self._timeline.now)

        self._notify(notice)

    def _suspect_across(self, cut: Partition, _: object) -> None:
        """Both sides suspect each other, if they are still apart."""
        now = self._timeline.now
        for me, peer in list(self._peers.items()):
            for other in [other for other in self._peers if cut.cuts(me.node, other.node, now)]:
                peer.take(ev.PeerSuspected(other, now))

    # -- telling ----------------------------------------------------------------------------------------------------

    def _notify(self, notice: Notice) -> None:
        """Tell everybody that is there; who is not hears it when it comes."""
        self._notices.append(notice)
        for me, peer in list(self._peers.items()):
            peer.take(notice(me))

    def _tell(self, event: ev.PeerSuspected) -> None:
        for peer in list(self._peers.values()):
            peer.take(event)
