"""Push-sum nodes in one process, on a network that does what a test says: for the machines' own tests.

Vectors are numpy; training is a function; what the machine asks for is carried out by the node's own executor, with the
ports in `swarm_ports`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from covey.gossip.audit import MassAudit, audit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.gossip.planning import Planner
from covey.gossip.protocols.runs import planner_of, policy_of, require_possible
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.node.gossip.executor import Executor, Ports
from covey.node.gossip.ports import State
from covey.node.gossip.state import progress
from covey.spec import GossipSpec
from covey.testing.swarm_ports import Disk, Message, SwarmClock, SwarmPost, Training, Vector, VectorLabour, no_training

Notice = ev.PeerJoined | ev.PeerEvicted | ev.PeerLeft
"""Of membership: what everybody is told, and told again after a restart."""

BEAT_S = 60.0
"""From one heartbeat to the next, once a network is without faults: longer than any pause of a leaver."""


class VirtualNode:
    """One incarnation: its executor, its disk, and the work that it has begun.

    Args:
        swarm: Where its messages go.
        me: Which one.
        z: Its first model.
        peers: Who takes part.
        minted: As `PushSum`.
    """

    def __init__(self, swarm: VirtualSwarm, me: Incarnation, z: Vector, peers: list[Incarnation], minted: int) -> None:
        self.swarm, self.me = swarm, me
        self.first, self._peers, self.minted = z.copy(), list(peers), minted
        self._notices: list[Notice] = []
        self._at_rest: Ledger | None = None
        self.disk = Disk(swarm.has_slow_disks, swarm.keeps_records)
        self.labour = VectorLabour(me.node, swarm.training, swarm.spec, swarm.codec)
        self.executor = Executor(self.fresh(), State(z.copy()), self._ports(), self._ended)

    def fresh(self) -> PushSum:
        """Its machine, as it begins."""
        return PushSum(self.me, self.swarm.policy, self._peers, self.minted)

    def _ports(self) -> Ports[Vector, tuple[int, Vector]]:
        post = SwarmPost(self.me, self.swarm.send)
        return Ports(post, self.labour, self.disk, self.swarm.clock, self.swarm.planner)

    def _ended(self) -> None:
        if self.executor.finished == "left":
            self.swarm.left(self)

    @property
    def machine(self) -> PushSum:
        """Its machine."""
        return self.executor.machine

    @property
    def z(self) -> Vector:
        """Its model."""
        return self.executor.model

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.executor.ledger

    @property
    def account(self) -> Ledger:
        """Its account; of a node that is down, the one that it will go on from."""
        if self.is_up:
            return self.ledger
        if self._at_rest is None:
            saved = self.disk.saved
            machine = saved.snapshot.machine if saved.snapshot is not None else self.fresh()
            for event, _ in saved.noted:
                machine.handle(event)
            self._at_rest = machine.exchange.ledger
        return self._at_rest

    @property
    def finished(self) -> str:
        """How it ended, or why it may not go on."""
        return self.executor.retired or self.executor.finished

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self.executor.is_up

    @property
    def is_busy(self) -> bool:
        """Whether there is work to be done, or something to be written."""
        return bool(self.labour.queue or self.disk.waiting)

    def take(self, event: ev.Event, body: Vector | None = None) -> None:
        """Give the node an event."""
        self.executor.take(event, body)

    def notice(self, event: Notice) -> None:
        """Take a notice of membership, now and again whenever the node is up again."""
        self._notices.append(event)
        if self.is_up:
            self.take(event)

    def heartbeat(self) -> None:
        """Say again where this node is, and send again what is not acknowledged."""
        self.executor.beat()

    def finish_work(self) -> None:
        """End the oldest piece of work; where there is none, write what waits to be written."""
        if self.labour.queue:
            self.labour.queue.popleft()()
        elif self.disk.waiting:
            self.disk.write()

    def crash(self) -> None:
        """Lose what is in memory."""
        self.executor.stop()
        self.labour.queue.clear()
        self.disk.waiting.clear()
        self._at_rest = None

    def restart(self) -> None:
        """Begin with what the disk has; links are made anew."""
        self.executor = Executor.restored(self.disk.saved, self.fresh(), self.first.copy(), self._ports(), self._ended)
        self.swarm.unlink(self.me)
        self.executor.begin()
        for event in self._notices:
            self.take(event)

    def shown_to(self, peer: Incarnation) -> ev.StatementsShown:
        """What it shows a peer when they have a link: what that one signed to have given it, and to have had of it."""
        given, had = self.account.into.get(peer, InEdge()), self.account.out.get(peer, OutEdge())
        return ev.StatementsShown(self.me, given.sequence, had.sequence - bool(had.waiting or had.reclaimed), 0.0)

    def sum_of_models(self) -> Vector:
        """The product w z, with what waits to be mixed in and what is on its way, float64 `[d]`."""
        bodies, exchange = self.executor.bodies, self.machine.exchange
        total = self.z.astype(np.float64) * (exchange.kept / ONE)
        for portion in exchange.pending:
            total = total + bodies.of(portion, self.me).astype(np.float64) * (portion.units / ONE)
        for peer, step in exchange.published.items():
            edge, receiver = self.ledger.out[peer], self.swarm.nodes.get(peer)
            had = receiver.ledger.into.get(self.me, InEdge()).sequence if receiver else 0
            if had < edge.sequence:
                body = bodies.own.get(step, self.z)  # its publication may just be going on
                total = total + body.astype(np.float64) * (edge.waiting / ONE)
        return total


class VirtualSwarm:
    """The nodes of one run, and the messages between them.

    Args:
        models: The first model of each node, float `[d]`, by its name.
        planner: Of the run.
        policy: Of the run.
        training: What a step does to a model.
        codec: What becomes of a model where it is sent; None: nothing.
        has_slow_disks: Whether writing takes until a node's work is asked for, so that a crash comes in between.
        spec: The run, where its protocol is to do the mixing; None: the weighted mean.
        keeps_records: Whether nodes can crash; else nothing is put on record.
    """

    def __init__(
        self,
        models: dict[str, Vector],
        planner: Planner,
        policy: PushSumPolicy,
        training: Training = no_training,
        *,
        codec: Callable[[Vector], Vector] | None = None,
        has_slow_disks: bool = False,
        spec: GossipSpec | None = None,
        keeps_records: bool = True,
    ) -> None:
        self.keeps_records = keeps_records
        self.planner, self.policy, self.training, self.has_slow_disks = planner, policy, training, has_slow_disks
        self.spec, self.codec, self.clock = spec, codec, SwarmClock()
        self.messages: list[Message] = []
        self.gone: dict[Incarnation, int] = {}
        self.cut: frozenset[Incarnation] = frozenset()
        """Between these nodes and all others everything is lost."""
        self.notify: Callable[[VirtualNode, Notice], None] = VirtualNode.notice
        """Tells a node of somebody's membership."""
        self._links: set[frozenset[Incarnation]] = set()
        names = [Incarnation(name) for name in models]
        self.nodes = {me: VirtualNode(self, me, models[me.node], names, ONE) for me in names}

    @classmethod
    def of_run(cls, spec: GossipSpec, models: dict[str, Vector], training: Training = no_training) -> VirtualSwarm:
        """The nodes of a run, with its protocol, topology and mixing weights. Raises as `require_possible`."""
        require_possible(spec, list(models), allow_path=True)
        policy = policy_of(spec.gossip, len(models), allow_path=True)
        return cls(models, planner_of(spec, allow_path=True), policy, training, spec=spec)

    def begin(self) -> None:
        """Everybody has heard everybody, and begins."""
        for node in self.nodes.values():
            for peer in self.nodes.values():
                if peer is not node:
                    node.take(progress(peer.machine, node.me, -1, False, 0.0))
        for node in self.nodes.values():
            node.executor.begin()

    def send(self, message: Message) -> None:
        """Put a message on its way."""
        self.messages.append(message)

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """Let a message arrive; `keep`: it will come once more. To a node that is down it is lost."""
        message = self.messages[index] if keep else self.messages.pop(index)
        node = self.nodes.get(message.receiver)
        is_cut_off = (message.sender in self.cut) != (message.receiver in self.cut)
        if node is not None and node.is_up and not is_cut_off:
            self._link(message.sender, message.receiver)
            node.take(message.event, message.body)

    def _link(self, *ends: Incarnation) -> None:
        """Before two nodes hear anything of each other, each shows what the other one signed."""
        nodes = [self.nodes[me] for me in ends if me in self.nodes]
        if frozenset(ends) in self._links or len(nodes) < len(ends):
            return
        self._links.add(frozenset(ends))
        for node, peer in (nodes, nodes[::-1]):
            if node.is_up:
                node.take(peer.shown_to(node.me))

    def unlink(self, me: Incarnation) -> None:
        """A node's links are broken: it began anew."""
        self._links = {link for link in self._links if me not in link}

    def run(self) -> None:
        """Deliver and work in order until nothing is left to do."""
        while self.messages or any(node.is_busy for node in self.up):
            if self.messages:
                self.deliver()
            for node in self.up:
                node.finish_work()

    def settle(self) -> None:
        """A network without faults from now on: run, with heartbeats, until nothing changes any more."""
        before = ""
        while before != (before := repr([(n.machine.step, n.machine.phase, n.ledger) for n in self.up])):
            self.clock.time += BEAT_S
            for node in self.up:
                node.heartbeat()
            self.run()

    @property
    def up(self) -> list[VirtualNode]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    def evict(self, me: Incarnation) -> None:
        """A node is out for good, and everybody is told."""
        evicted = self.nodes.pop(me)
        evicted.crash()
        self.gone[me] = evicted.minted
        for node in self.nodes.values():
            self.notify(node, ev.PeerEvicted(me, 0.0))

    def left(self, leaver: VirtualNode) -> None:
        """A node has handed over what it had, and everybody is told."""
        for me, node in self.nodes.items():
            if node is not leaver:
                applied = leaver.ledger.into.get(me, InEdge()).sequence
                self.notify(node, ev.PeerLeft(leaver.me, applied, 0.0))

    def join(self, me: Incarnation, z: Vector, minted: int = ONE) -> None:
        """A node joins with a model, and mass of its own, or with none: then it asks for some."""
        peers = [*self.nodes, me]
        self.nodes[me] = self.enter(VirtualNode(self, me, z, peers, minted))
        for node in self.nodes.values():
            if node.me != me:
                self.notify(node, ev.PeerJoined(me, minted, 0.0))
        self.nodes[me].executor.begin()
        for node in self.up:
            node.heartbeat()

    def enter(self, node: VirtualNode) -> VirtualNode:
        """Equip a node that joins."""
        return node

    def audit(self) -> MassAudit:
        """By what the nodes have in memory."""
        return audit({me: node.ledger for me, node in self.nodes.items()}, self.gone)

    def sum_of_models(self) -> Vector:
        """The sum of w z over the nodes and all that is on its way or waits to be mixed in, float64 `[d]`."""
        total: Vector = np.sum([node.sum_of_models() for node in self.nodes.values()], axis=0)
        return total


def uneven(models: dict[str, Vector]) -> float:
    """The largest distance of a node's model from the mean, in the largest norm."""
    stacked = np.stack(list(models.values()))
    return float(np.abs(stacked - stacked.mean(0)).max())
