"""Push-sum nodes in one process, on a network that does what a test says: for the machines' own tests.

Vectors are numpy; training is a function. What a node would write to its disk is kept apart from what it has in memory,
as JSON, so that a crash loses just what a crash loses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from covey.gossip import ledger as ledger_module
from covey.gossip.audit import MassAudit, audit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum import exchange as exchange_module
from covey.gossip.push_sum import machine as machine_module
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.machines.values import ValueTable

Vector = npt.NDArray[np.floating[Any]]
Training = Callable[[str, int, Vector, float], Vector]
"""(node, step, z, scale) -> the new z."""
TABLE = ValueTable(ev, act, machine_module, exchange_module, ledger_module)
"""What a node's record holds of the machine."""


def no_training(node: str, step: int, z: Vector, scale: float) -> Vector:
    """Averaging alone."""
    return z


@dataclass(frozen=True)
class Message:
    """Something on its way between two incarnations."""

    sender: Incarnation
    receiver: Incarnation
    event: Any
    body: Vector | None = None


class Disk:
    """What survives a crash of one node."""

    def __init__(self) -> None:
        self.snapshot = ""
        self.model: Vector | None = None
        self.journal: list[ev.Event] = []
        self.inbox: dict[tuple[Incarnation, int], Vector] = {}
        self.bodies: dict[int, Vector] = {}

    def copy(self) -> Disk:
        """As a backup has it: later writes do not change it."""
        copied = Disk()
        copied.snapshot, copied.model = self.snapshot, self.model
        copied.journal, copied.inbox, copied.bodies = list(self.journal), dict(self.inbox), dict(self.bodies)
        return copied


class VirtualNode:
    """One incarnation: its machine, its model, its disk, and the work that it has begun.

    Args:
        swarm: Where its messages go.
        me: Which one.
        z: Its first model.
        peers: Who takes part.
        minted: As `PushSum`.
    """

    def __init__(self, swarm: VirtualSwarm, me: Incarnation, z: Vector, peers: list[Incarnation], minted: int) -> None:
        self.swarm, self.me, self.z = swarm, me, z.copy()
        self.first, self._peers, self._minted = z.copy(), list(peers), minted
        self.machine = PushSum(me, swarm.policy, peers, minted)
        self.disk = Disk()
        self.work: list[act.Action] = []
        self.finished = ""
        self.is_up = True

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.machine.exchange.ledger

    def take(self, event: ev.Event, body: Vector | None = None) -> None:
        """Give the machine an event, and do what it asks for."""
        if isinstance(event, ev.Arrived) and body is not None:
            self.disk.inbox.setdefault((event.peer, event.sequence), body)
        actions = self.machine.handle(event)
        if isinstance(event, ev.PeerJoined | ev.PeerEvicted | ev.PeerLeft) or any(
            isinstance(action, act.Accept) for action in actions
        ):
            self.disk.journal.append(event)
        for action in actions:
            self._do(action)

    def notice(self, event: ev.PeerJoined | ev.PeerEvicted | ev.PeerLeft) -> None:
        """Take a notice of membership, now or when the node is up again."""
        if self.is_up:
            self.take(event)
        else:
            self.disk.journal.append(event)

    def _do(self, action: act.Action) -> None:
        match action:
            case act.Train() | act.Mix() | act.Publish():
                self.work.append(action)
            case act.Plan(step=step, peers=peers):
                self.take(self.swarm.planner.plan(step, self.me, peers))
            case act.Send(batch=batch, step=step):
                arrived = ev.Arrived(self.me, batch.sequence, batch.units, step, 0.0)
                self.swarm.send(Message(self.me, batch.peer, arrived, self.disk.bodies[step]))
            case act.Accept(peer=peer, sequence=sequence) | act.AcknowledgeAgain(peer=peer, sequence=sequence):
                self.swarm.send(Message(self.me, peer, ev.Acknowledged(self.me, sequence)))
            case act.Announce(step=step, to=to, is_finished=is_finished):
                self.announce(step, is_finished, to)
            case act.Finish(reason=reason) | act.Retire(reason=reason):
                self.finished = reason
                if reason == "left":
                    self._save()  # before anybody is told: it takes nothing from now on, whatever happens to it
                    self.swarm.left(self)

    def announce(self, step: int, is_finished: bool, to: tuple[Incarnation, ...] = ()) -> None:
        """Tell some, or everybody, where this node is."""
        for peer in to or self.machine.exchange.peers:
            self.swarm.send(Message(self.me, peer, self.progress(peer, step, is_finished)))

    def progress(self, peer: Incarnation, step: int, is_finished: bool) -> ev.Progressed:
        """What a peer is told."""
        out, into = (
            self.machine.exchange.ledger.out.get(peer, OutEdge()),
            self.machine.exchange.ledger.into.get(peer, InEdge()),
        )
        acknowledged = out.sequence - bool(out.waiting)
        return ev.Progressed(self.me, step, out.sequence, acknowledged, into.sequence, is_finished, 0.0)

    def heartbeat(self) -> None:
        """Say again where this node is, and send again what is not acknowledged."""
        is_published = self.machine.phase in ("collecting", "mixing", "lingering", "settling")
        step = self.machine.step if is_published else self.machine.step - 1
        self.announce(step, self.machine.phase == "lingering")
        for action in self.machine.unacknowledged():
            self._do(action)

    def finish_work(self) -> None:
        """End the oldest piece of work."""
        match self.work.pop(0):
            case act.Train(step=step, scale=scale):
                self.z = self.swarm.training(self.me.node, step, self.z, scale)
                self.take(ev.Trained(step, 0.0))
            case act.Mix(step=step, kept=kept, portions=portions):
                self._mix(kept, portions)
                self.take(ev.Mixed(step, 0.0))
            case act.Publish(step=step):
                self._save()
                self.disk.bodies[step] = self.z.copy()
                self.take(ev.Published(step, 0.0))

    def _save(self) -> None:
        self.disk.snapshot, self.disk.model = json.dumps(TABLE.to_json(self.machine)), self.z.copy()
        self.disk.journal.clear()

    def _mix(self, kept: int, portions: tuple[act.Portion, ...]) -> None:
        total = kept + sum(portion.units for portion in portions)
        mixed = self.z * (kept / total)
        for portion in portions:
            own = portion.source == self.me
            body = self.disk.bodies[portion.number] if own else self.disk.inbox[portion.source, portion.number]
            mixed = mixed + body * (portion.units / total)
        self.z = mixed.astype(self.z.dtype)

    def crash(self) -> None:
        """Lose what is in memory."""
        self.work, self.is_up = [], False

    def restart(self) -> None:
        """Begin with what the disk has."""
        self.is_up, self.work = True, []
        if self.disk.snapshot:
            self.machine = TABLE.from_json(json.loads(self.disk.snapshot))
            assert self.disk.model is not None
            self.z = self.disk.model.copy()
        else:
            self.machine, self.z = PushSum(self.me, self.swarm.policy, self._peers, self._minted), self.first.copy()
        for event in self.disk.journal:
            self.machine.handle(event)
        self.take(ev.Begun(0.0))


class VirtualSwarm:
    """The nodes of one run, and the messages between them.

    Args:
        models: The first model of each node, float `[d]`, by its name.
        planner: Of the run.
        policy: Of the run.
        training: What a step does to a model.
    """

    def __init__(
        self, models: dict[str, Vector], planner: Planner, policy: PushSumPolicy, training: Training = no_training
    ) -> None:
        self.planner, self.policy, self.training = planner, policy, training
        self.messages: list[Message] = []
        self.gone: dict[Incarnation, int] = {}
        names = [Incarnation(name) for name in models]
        self.nodes = {me: VirtualNode(self, me, models[me.node], names, ONE) for me in names}

    def begin(self) -> None:
        """Everybody has heard everybody, and begins."""
        for node in self.nodes.values():
            for peer in self.nodes.values():
                if peer is not node:
                    node.take(peer.progress(node.me, -1, False))
        for node in self.nodes.values():
            node.take(ev.Begun(0.0))

    def send(self, message: Message) -> None:
        """Put a message on its way."""
        self.messages.append(message)

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """Let a message arrive; `keep`: it will come once more. To a node that is down it is lost."""
        message = self.messages[index] if keep else self.messages.pop(index)
        node = self.nodes.get(message.receiver)
        if node is not None and node.is_up:
            node.take(message.event, message.body)

    def run(self) -> None:
        """Deliver and work in order until nothing is left to do."""
        while self.messages or any(node.work for node in self.up):
            if self.messages:
                self.deliver()
            for node in self.up:
                if node.work:
                    node.finish_work()

    def settle(self) -> None:
        """A network without faults from now on: run, with heartbeats, until nothing changes any more."""
        before = ""
        while before != (before := repr([(n.machine.step, n.machine.phase, n.ledger) for n in self.up])):
            for node in self.up:
                node.heartbeat()
            self.run()

    @property
    def up(self) -> list[VirtualNode]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    def evict(self, me: Incarnation) -> None:
        """A node is out for good, and everybody is told."""
        self.nodes.pop(me).crash()
        self.gone[me] = ONE
        for node in self.nodes.values():
            node.notice(ev.PeerEvicted(me, 0.0))

    def left(self, leaver: VirtualNode) -> None:
        """A node has handed over what it had, and everybody is told."""
        for me, node in self.nodes.items():
            if node is not leaver:
                applied = leaver.ledger.into.get(me, InEdge()).sequence
                node.notice(ev.PeerLeft(leaver.me, applied, 0.0))

    def join(self, me: Incarnation, z: Vector) -> None:
        """A node joins with a model, and mass of its own."""
        peers = [*self.nodes, me]
        self.nodes[me] = VirtualNode(self, me, z, peers, ONE)
        for node in self.nodes.values():
            if node.me != me:
                node.notice(ev.PeerJoined(me, ONE, 0.0))
        self.nodes[me].take(ev.Begun(0.0))
        for node in self.up:
            node.heartbeat()

    def audit(self) -> MassAudit:
        """By what the nodes have in memory."""
        return audit({me: node.ledger for me, node in self.nodes.items()}, self.gone)

    def sum_of_models(self) -> Vector:
        """The sum of w z over the nodes and all that is on its way or waits to be mixed in, float64 `[d]`."""
        total = np.zeros_like(next(iter(self.nodes.values())).z, dtype=np.float64)
        for node in self.nodes.values():
            total += node.z.astype(np.float64) * (node.machine.exchange.kept / ONE)
            for portion in node.machine.exchange.pending:
                own = portion.source == node.me
                body = node.disk.bodies[portion.number] if own else node.disk.inbox[portion.source, portion.number]
                total += body.astype(np.float64) * (portion.units / ONE)
            for peer, step in node.machine.exchange.published.items():
                edge, receiver = node.ledger.out[peer], self.nodes.get(peer)
                had = receiver.ledger.into.get(node.me, InEdge()).sequence if receiver else 0
                if had < edge.sequence:
                    total += node.disk.bodies[step].astype(np.float64) * (edge.waiting / ONE)
        return total


def uneven(models: dict[str, Vector]) -> float:
    """The largest distance of a node's model from the mean, in the largest norm."""
    stacked = np.stack(list(models.values()))
    return float(np.abs(stacked - stacked.mean(0)).max())
