"""The network between virtual nodes: it delays and loses messages, by the run's seed and not by this machine's load."""

from __future__ import annotations

import random
from collections.abc import Mapping

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum import events as ev
from covey.seeds import derive_seed
from covey.simulation.gossip.faults import Network
from covey.simulation.gossip.models import Model
from covey.simulation.gossip.peer import VirtualPeer
from covey.simulation.gossip.timeline import Timeline


class VirtualNetwork:
    """Messages on their way.

    Args:
        timeline: Virtual time.
        faults: What happens to messages.
        seed: The run's.
        peers: Who is there.
    """

    def __init__(
        self, timeline: Timeline, faults: Network, seed: int, peers: Mapping[Incarnation, VirtualPeer]
    ) -> None:
        self._timeline, self._faults, self._peers = timeline, faults, peers
        self._random = random.Random(derive_seed(seed, "gossip-network"))
        self.models = self.lost_models = 0
        """How many were sent, and how many of them were lost."""

    def send(self, sender: Incarnation, receiver: Incarnation, event: ev.Event, model: Model | None) -> None:
        """Put a message on its way."""
        is_lost = self._faults.loss > 0 and self._random.random() < self._faults.loss
        self.models += model is not None
        is_lost |= self._is_cut(sender, receiver)
        self.lost_models += is_lost and model is not None
        if is_lost:
            return
        if model is not None:
            model.hold()
        delay = self._faults.delay * self._random.uniform(0.5, 1.5) if self._faults.delay else 0.0
        self._timeline.after(delay, lambda _: self._deliver(sender, receiver, event, model))

    def _is_cut(self, sender: Incarnation, receiver: Incarnation) -> bool:
        return self._faults.is_cut(sender.node, receiver.node, self._timeline.now)

    def _deliver(self, sender: Incarnation, receiver: Incarnation, event: ev.Event, model: Model | None) -> None:
        peer, is_cut = self._peers.get(receiver), self._is_cut(sender, receiver)
        self.lost_models += is_cut and model is not None
        if peer is not None and not is_cut:
            peer.take(event, model)
        if model is not None:
            model.release()
