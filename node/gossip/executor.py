"""Carries out what a node's push-sum machine asks for, through ports: one program for daemon, simulation and tests.

Everything happens on one thread, and nothing waits: what takes time calls back. An event is first taken by the machine;
what has to survive is then given to the record, and a peer is answered when the record has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from covey.gossip.ledger import Batch, Incarnation, InEdge, Ledger
from covey.gossip.mass import weight
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.joining import asked_for_half
from covey.gossip.push_sum.machine import PushSum
from covey.node.gossip.bodies import Bodies
from covey.node.gossip.farewells import Farewells
from covey.node.gossip.ports import Clock, Labour, Moment, Piece, Post, Record, Saved, Snapshot, State
from covey.node.gossip.state import is_done_with, progress, standing

B = TypeVar("B")
T = TypeVar("T")


@dataclass(frozen=True)
class Ports(Generic[B, T]):
    """What an executor works with."""

    post: Post[B]
    labour: Labour[B, T]
    record: Record[B]
    clock: Clock
    planner: Planner


@dataclass
class Hours:
    """How a node's time went, in the clock's seconds."""

    trained_s: float = 0.0
    blocked_s: float = 0.0
    """Between a training and the next: waiting for peers, and exchanging."""
    began: float = 0.0
    ended: float | None = None
    """When the newest training did; None: there was none."""


class Executor(Generic[B, T]):
    """One incarnation at work.

    Args:
        machine: Its machine.
        state: What it begins with; it is held from now on.
        ports: What it works with.
        on_ended: Told of `finished`, when it is.
    """

    def __init__(
        self, machine: PushSum, state: State[B], ports: Ports[B, T], on_ended: Callable[[], None] = lambda: None
    ) -> None:
        self.machine, self.state, self._ports, self._on_ended = machine, state, ports, on_ended
        self.bodies = Bodies(ports.labour)
        self.hours = Hours()
        self.farewells = Farewells()
        self.waits_for = self.finished = self.retired = ""
        """What it waits for; how it ended; why its record cannot be used any more. Empty: nothing, not."""
        self._is_down = False
        self._scale = 1.0
        self._trained: T | None = None

    @classmethod
    def restored(
        cls, saved: Saved[B], fresh: PushSum, first: B, ports: Ports[B, T], on_ended: Callable[[], None] = lambda: None
    ) -> Executor[B, T]:
        """An incarnation that goes on from its record.

        Args:
            saved: What the record has; its machine is used from now on.
            fresh: A machine that begins, where nothing was published yet.
            first: The first model, where nothing was published yet; the caller lets go of it.
            ports: What it works with.
            on_ended: As for the constructor.
        """
        snapshot = saved.snapshot
        machine = snapshot.machine if snapshot else fresh
        state = snapshot.state if snapshot else State(first)
        for file in state.files:
            ports.labour.hold(file)
        executor = cls(machine, state, ports, on_ended)
        executor.bodies.restore(snapshot, first)
        for event, body in saved.noted:
            machine.handle(event)
            if isinstance(event, ev.Arrived) and body is not None:
                executor.bodies.came(event.peer, event.sequence, body)
        executor.finished = machine.end
        return executor

    @property
    def model(self) -> B:
        """Its model."""
        return self.state.model

    @property
    def me(self) -> Incarnation:
        """Whose."""
        return self.machine.me

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.machine.exchange.ledger

    @property
    def is_up(self) -> bool:
        """Whether it can still answer."""
        return not self._is_down

    def begin(self) -> None:
        """Take part from now on, or go on after a restart."""
        self.take(ev.Begun(self._ports.clock.now()))

    def take_over(self, model: B, then: Callable[[], None]) -> None:
        """Before it begins: have a peer's model in place of the first one; one that is no finite model is passed over.

        Args:
            model: The peer's; the caller holds it until `then` is called.
            then: Called when it is done.
        """
        self._ports.labour.mix(None, self.state, [Piece(model, 1.0)], self._made(then))

    def newest(self) -> tuple[B, int]:
        """The model of the newest publication and its step; before there is one, the model that it began with."""
        step = max(self.bodies.own, default=None)
        return (self.model, self.machine.step) if step is None else (self.bodies.own[step], step)

    def stop(self) -> None:
        """End without a word: nothing is done any more, whatever comes back. Models stay, for the record."""
        self._is_down = True

    def take(self, event: ev.Event, body: B | None = None) -> None:
        """Take what happened, and do what the machine asks for.

        Raises:
            LedgerError: A peer acknowledges what was never sent.
            ValueError: The run's topology and mixing weights do not go together.
        """
        if self._is_down:
            return
        change = event if isinstance(event, ev.PeerJoined | ev.PeerEvicted | ev.PeerLeft) else None
        before = change and standing(self.machine, change.peer)
        actions = self.machine.handle(event)
        if change and standing(self.machine, change.peer) != before:  # a peer may say the same again and again
            self._ports.record.note(change, None, lambda: None)
        for action in actions:
            if isinstance(action, act.Accept) and isinstance(event, ev.Arrived) and body is not None:
                self._accept(event, body)
            else:
                self._do(action)
        if not self._is_down:
            self.bodies.tidy(self.machine)

    def beat(self) -> None:
        """Say where this node is, and send again what is not acknowledged."""
        if self._is_down:
            return
        for peer in self.machine.exchange.peers:
            self.say(peer)
        giver = asked_for_half(self.machine.exchange)
        if giver is not None and not self.machine.is_leaving:
            self._ports.post.tell(giver, ev.HalfAsked(self.me, self._ports.clock.now()))
        for action in self.machine.unacknowledged():
            self._do(action)

    def say(self, peer: Incarnation) -> None:
        """Tell a peer where this node is."""
        if self._is_down:
            return
        if self.finished == "left":
            self._say_left(peer)
        else:
            self._tell(peer, is_done_with(self.machine), self.machine.phase == "lingering")

    # -- actions ----------------------------------------------------------------------------------------------------

    def _do(self, action: act.Action) -> None:
        post = self._ports.post
        match action:
            case act.Train(step=step, scale=scale):
                self._train(step, scale)
            case act.Plan(step=step, peers=peers):
                planner, averaging = self._ports.planner, self.machine.policy.averaging
                planner = planner.averaging if averaging.is_round(step) else planner
                self.take(planner.plan(step, self.me, peers))
            case act.Publish(step=step, batches=batches):
                self._apply(step, batches)
            case act.Mix(step=step, kept=kept, portions=portions):
                self._mix(step, kept, portions)
            case act.Send(batch=batch, step=step):
                post.send(batch, step, self.bodies.own[step])
            case act.AcknowledgeAgain(peer=peer, sequence=sequence):
                self._once_durable(lambda: post.acknowledge(peer, sequence))
            case act.Refuse(peer=peer, sequence=sequence, reason=reason):
                post.refuse(peer, sequence, reason)
            case act.Announce(step=step, to=to, is_finished=is_finished):
                for peer in to or tuple(self.machine.exchange.peers):
                    self._tell(peer, step, is_finished)
            case act.Report(reason=reason):
                self.waits_for = reason
            case act.Retire(reason=reason):
                self.retired = reason
                self._end("retired")
            case act.Finish(reason=reason):  # on record first: the last mixture, and that a leaver takes nothing more
                self._save((), lambda: self._end(reason))

    def _tell(self, peer: Incarnation, step: int, is_finished: bool) -> None:
        farewell = self.farewells.level(peer) if is_finished else 0
        message = progress(self.machine, peer, step, is_finished, self._ports.clock.now(), farewell)
        self._once_durable(lambda: self._ports.post.tell(peer, message))  # it says what is on record here

    def _say_left(self, peer: Incarnation) -> None:
        applied = self.ledger.into.get(peer, InEdge()).sequence
        self._ports.post.tell(peer, ev.PeerLeft(self.me, applied, self._ports.clock.now()))

    def _once_durable(self, then: Callable[[], None]) -> None:
        self._ports.record.when_durable(self._unless_down(then))

    def _end(self, reason: str) -> None:
        self.finished = reason
        self._on_ended()

    def _accept(self, event: ev.Arrived, body: B) -> None:
        self.bodies.came(event.peer, event.sequence, body)
        answer = self._unless_down(lambda: self._ports.post.acknowledge(event.peer, event.sequence))
        self._ports.record.note(event, body, answer)

    # -- work -------------------------------------------------------------------------------------------------------

    def _unless_down(self, then: Callable[[], None]) -> Callable[[], None]:
        return lambda: None if self._is_down else then()

    def _made(self, then: Callable[[], None]) -> Callable[[State[B]], None]:
        """What takes what the labour made: it takes the place of what was before."""

        def take_over(state: State[B]) -> None:
            dropped = state if self._is_down else self.state
            for file in dropped.files:
                self._ports.labour.release(file)
            if not self._is_down:
                self.state = state
                then()

        return take_over

    def _train(self, step: int, scale: float) -> None:
        hours, self._scale = self.hours, scale
        hours.began = self._ports.clock.now()
        if hours.ended is not None:
            hours.blocked_s += hours.began - hours.ended
        number = self.machine.policy.averaging.trainings(step)
        self._ports.labour.train(number, self.state, lambda trained: self._has_trained(step, trained))

    def _has_trained(self, step: int, trained: T) -> None:
        if self._is_down:
            return
        self._trained = trained
        self.hours.ended = now = self._ports.clock.now()
        self.hours.trained_s += now - self.hours.began
        self.take(ev.Trained(step, now))

    def _moment(self, step: int, units: int) -> Moment:
        """Now, with so much mass."""
        machine = self.machine
        evictions, number = len(self.ledger.evicted), machine.policy.averaging.trainings(step)
        peers = tuple(machine.exchange.peers)
        return Moment(number, weight(units), evictions, machine.is_leaving, peers=peers)

    def _mix(self, step: int, kept: int, portions: tuple[act.Portion, ...]) -> None:
        whole = kept + sum(portion.units for portion in portions)
        parts = [Piece(self.bodies.of(p, self.me), p.units / whole, p.source, p.step) for p in portions]
        mixed = self._made(lambda: self.take(ev.Mixed(step, self._ports.clock.now())))
        self._ports.labour.mix(self._moment(step, whole), self.state, parts, mixed)

    def _apply(self, step: int, batches: tuple[Batch, ...]) -> None:
        trained, self._trained = self._trained, None
        units, kept = sum(batch.units for batch in batches), self.machine.exchange.kept
        moment = self._moment(step, kept + units)
        moment = replace(moment, given=units / kept if kept else 0.0, is_whole=self.machine.exchange.is_whole)
        then = self._made(lambda: self._publish(step, batches))
        self._ports.labour.apply(moment, self.state, trained, self._scale, then)

    def _publish(self, step: int, batches: tuple[Batch, ...]) -> None:
        self.bodies.published(step, self.state.body)
        self._save(batches, lambda: self.take(ev.Published(step, self._ports.clock.now())))

    def _save(self, batches: tuple[Batch, ...], then: Callable[[], None]) -> None:
        bodies, machine = self.bodies, self.machine
        bodies.tidy(machine)
        state = self.state
        snapshot = Snapshot(machine.step, machine, state.model, dict(bodies.own), dict(bodies.inbox), state.kept)
        superseded = bodies.recorded(snapshot)

        def is_durable() -> None:
            superseded()
            then()

        self._ports.record.publish(snapshot, batches, self._unless_down(is_durable))
