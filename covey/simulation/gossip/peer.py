"""One virtual node: its machine, its model, and what the machine asks for, done in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.planning import Planner
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum
from covey.simulation.gossip.models import Model, ModelFolder
from covey.simulation.gossip.timeline import Timeline
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.jobs.training import TrainJob, TrainResult


class Labour(Protocol):
    """Where the work with tensors is done."""

    async def train(self, job: TrainJob) -> TrainResult:
        """Train."""

    async def mix(self, job: MixJob) -> MixResult:
        """Mix."""


@dataclass(frozen=True)
class World:
    """What all virtual nodes of a run share.

    Attributes:
        timeline: Virtual time.
        labour: Where work is done.
        planner: The run's topology and mixing weights.
        models: Where models are kept.
        layout: The run's, as JSON.
        send: Puts a message on its way: from, to, what is to be told, and the model that goes with it.
        train_job: (node, step, base, scratch) -> the job.
        ended: Told when a node's part is over.
    """

    timeline: Timeline
    labour: Labour
    planner: Planner
    models: ModelFolder
    layout: str
    send: Callable[[Incarnation, Incarnation, ev.Event, Model | None], None]
    train_job: Callable[[str, int, Path, Path], TrainJob]
    ended: Callable[[VirtualPeer], None]


class VirtualPeer:
    """A node of a simulated gossip run.

    Args:
        machine: Its machine.
        model: What it begins with.
        world: What it shares with the others.
        scratch: A folder of its own.
        speed: How many steps of training it does in a unit of time.
    """

    def __init__(self, machine: PushSum, model: Model, world: World, scratch: Path, speed: float) -> None:
        self.machine, self.model, self.reason = machine, model, ""
        self.loss: float | None = None
        self.trained = self.blocked = 0.0
        self._world, self._scratch, self._speed = world, scratch, speed
        self._bodies: dict[int, Model] = {}
        self._inbox: dict[tuple[Incarnation, int], Model] = {}
        self._change: TrainResult | None = None
        self._scale = 1.0
        self._idle_since: float | None = None

    @property
    def me(self) -> Incarnation:
        """Which one."""
        return self.machine.me

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.machine.exchange.ledger

    @property
    def is_up(self) -> bool:
        """Whether it can still answer."""
        return self.reason not in ("died", "left")

    def take(self, event: ev.Event, body: Model | None = None) -> None:
        """Give the machine an event, and do what it asks for."""
        if not self.is_up:
            return
        for action in self.machine.handle(event):
            if isinstance(action, act.Accept) and body is not None:
                self._inbox[action.peer, action.sequence] = body.hold()
            self._do(action)
        self._tidy()

    def begin(self) -> None:
        """Take part from now on."""
        self.take(ev.Begun(self._world.timeline.now))

    def die(self) -> None:
        """End without a word."""
        self.reason = "died"
        for model in (*self._bodies.values(), *self._inbox.values()):
            model.release()
        self._bodies, self._inbox = {}, {}

    def beat(self) -> None:
        """Say where this node is, and send again what is not acknowledged."""
        is_published = self.machine.phase in ("collecting", "mixing", "lingering", "settling")
        step = self.machine.step if is_published else self.machine.step - 1
        for peer in self.machine.exchange.peers:
            self._tell(peer, step, self.machine.phase == "lingering")
        for action in self.machine.unacknowledged():
            self._do(action)

    # -- actions ----------------------------------------------------------------------------------------------------

    def _do(self, action: act.Action) -> None:
        world = self._world
        match action:
            case act.Train(step=step, scale=scale):
                self._train(step, scale)
            case act.Plan(step=step, peers=peers):
                self.take(world.planner.plan(step, self.me, peers))
            case act.Publish(step=step):
                self._make(self._trained_job(), lambda model: self._publish(step, model))
            case act.Mix(step=step, kept=kept, portions=portions):
                self._make(self._mix_job(kept, portions), lambda model: self._mixed(step, model))
            case act.Send(batch=batch, step=step):
                arrived = ev.Arrived(self.me, batch.sequence, batch.units, step, world.timeline.now)
                world.send(self.me, batch.peer, arrived, self._bodies[step])
            case act.Accept(peer=peer, sequence=sequence) | act.AcknowledgeAgain(peer=peer, sequence=sequence):
                world.send(self.me, peer, ev.Acknowledged(self.me, sequence), None)
            case act.Announce(step=step, to=to, is_finished=is_finished):
                for peer in to or tuple(self.machine.exchange.peers):
                    self._tell(peer, step, is_finished)
            case act.Finish(reason=reason):
                self.reason = reason
                world.ended(self)

    def _tell(self, peer: Incarnation, step: int, is_finished: bool) -> None:
        out, into = self.ledger.out.get(peer, OutEdge()), self.ledger.into.get(peer, InEdge())
        acknowledged, now = out.sequence - bool(out.waiting), self._world.timeline.now
        progressed = ev.Progressed(self.me, step, out.sequence, acknowledged, into.sequence, is_finished, now)
        self._world.send(self.me, peer, progressed, None)

    def _train(self, step: int, scale: float) -> None:
        world = self._world
        if self._idle_since is not None:
            self.blocked += world.timeline.now - self._idle_since
        job = world.train_job(self.me.node, step, self.model.path, self._scratch)
        self._scale = scale
        work = asyncio.create_task(world.labour.train(job))
        world.timeline.after(1.0 / self._speed, lambda result: self._has_trained(step, result), work)

    def _has_trained(self, step: int, result: TrainResult) -> None:
        if not self.is_up:
            return
        self._idle_since = self._world.timeline.now
        self.trained += 1.0 / self._speed
        self._change = result
        total = result.metrics.get("loss")
        self.loss = total[0] / total[1] if isinstance(total, tuple) and total[1] else self.loss
        self.take(ev.Trained(step, self._world.timeline.now))

    def _trained_job(self) -> MixJob:
        world, result = self._world, self._change
        files = {part.name: part.path for part in result.parts} if result is not None else {}
        return MixJob(
            world.layout,
            self.model.path,
            world.models.new(),
            change=files.get("model"),
            scale=self._scale,
            buffers=files.get("buffers"),
        )

    def _mix_job(self, kept: int, portions: tuple[act.Portion, ...]) -> MixJob:
        total = kept + sum(portion.units for portion in portions)
        mixed = tuple(Portion(self._body_of(portion).path, portion.units / total) for portion in portions)
        return MixJob(self._world.layout, self.model.path, self._world.models.new(), mixed)

    def _body_of(self, portion: act.Portion) -> Model:
        if portion.source == self.me:
            return self._bodies[portion.number]
        return self._inbox[portion.source, portion.number]

    def _make(self, job: MixJob, then: Callable[[Model], None]) -> None:
        work = asyncio.create_task(self._world.labour.mix(job))

        def made(result: MixResult) -> None:
            model = Model(job.out, result.model_sha256)
            if self.is_up:
                self.model.release()
                self.model = model
                then(model)
            else:
                model.release()

        self._world.timeline.after(0.0, made, work)

    def _publish(self, step: int, model: Model) -> None:
        self._change = None
        if (before := self._bodies.pop(step, None)) is not None:  # what is handed over is published once more
            before.release()
        self._bodies[step] = model.hold()
        self.take(ev.Published(step, self._world.timeline.now))

    def _mixed(self, step: int, model: Model) -> None:
        self.take(ev.Mixed(step, self._world.timeline.now))

    def _tidy(self) -> None:
        """Let go of models that nothing needs any more."""
        exchange = self.machine.exchange
        needed = {(portion.source, portion.number) for portion in exchange.pending}
        steps = {*exchange.published.values(), *(number for source, number in needed if source == self.me)}
        for step in [step for step in self._bodies if step not in steps and step != self.machine.step]:
            self._bodies.pop(step).release()
        for key in [key for key in self._inbox if key not in needed]:
            self._inbox.pop(key).release()
