"""One virtual node: the node's own executor, with work and messages in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from typing_extensions import override

from covey.gossip.ledger import Batch, Incarnation, Ledger
from covey.gossip.planning import Planner
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum
from covey.node.gossip.adversary import AdversaryPost, PeerAttack
from covey.node.gossip.executor import Executor, Ports
from covey.node.gossip.ports import Clock, Labour, Moment, Piece, Post, Said, State
from covey.simulation.gossip.models import Model, ModelFolder
from covey.simulation.gossip.record import NoRecord, VirtualRecord
from covey.simulation.gossip.timeline import Timeline
from covey.simulation.gossip.workers import Workers
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.jobs.training import TrainJob, TrainResult


@dataclass(frozen=True)
class World:
    """What all virtual nodes of a run share.

    Attributes:
        timeline: Virtual time.
        workers: Where work is done.
        planner: The run's topology and mixing weights.
        models: Where models are kept.
        changes: Where what training did is kept, until it is applied.
        layout: The run's, as JSON.
        spec_json: The run.
        is_encoded: Whether what is sent is encoded.
        places: Of the nodes, among all.
        send: Puts a message on its way: from, to, what is to be told, and the model that goes with it.
        train_job: (node, step, what it has, the files of the parts) -> the job.
        ended: Told when a node's part is over.
        seed: The run's.
        adversaries: What those do that are not honest, by name.
        refused: Told when somebody refuses a batch.
        parts: Of a method, that are sent in place of the model.
        layouts: Of nodes whose models are different ones, by name.
    """

    timeline: Timeline
    workers: Workers
    planner: Planner
    models: ModelFolder
    changes: ModelFolder
    layout: str
    spec_json: str
    is_encoded: bool
    places: Mapping[str, int]
    send: Callable[[Incarnation, Incarnation, ev.Event, Model | None], None]
    train_job: Callable[[str, int, State[Model], Mapping[str, Path]], TrainJob]
    ended: Callable[[VirtualPeer], None]
    seed: int = 0
    adversaries: Mapping[str, PeerAttack] = field(default_factory=dict)
    refused: Callable[[], None] = lambda: None
    parts: tuple[str, ...] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)

    def layout_of(self, node: str) -> str:
        """A node's own, as JSON."""
        return self.layouts.get(node, self.layout)


class VirtualClock(Clock):
    """Virtual time.

    Args:
        timeline: Whose.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    @override
    def now(self) -> float:
        return self._timeline.now


class VirtualPost(Post[Model]):
    """Gives messages to the virtual network.

    Args:
        me: Whose.
        world: Where the network is.
    """

    def __init__(self, me: Incarnation, world: World) -> None:
        self._me, self._world = me, world

    @override
    def tell(self, peer: Incarnation, event: Said) -> None:
        self._world.send(self._me, peer, event, None)

    @override
    def send(self, batch: Batch, step: int, body: Model) -> None:
        arrived = ev.Arrived(self._me, batch.sequence, batch.units, step, self._world.timeline.now, batch.given)
        self._world.send(self._me, batch.peer, arrived, body)

    @override
    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        self._world.send(self._me, peer, ev.Acknowledged(self._me, sequence), None)

    @override
    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        self._world.refused()
        self._world.send(self._me, peer, ev.Refused(self._me, sequence), None)


class VirtualLabour(Labour[Model, TrainResult]):
    """Work of one node: done by any process, and over when its virtual time has come.

    Args:
        node: Whose.
        world: Where it is done.
        speed: How many steps of training it does in a unit of time.
    """

    def __init__(self, node: str, world: World, speed: float) -> None:
        self._node, self._world, self._speed = node, world, speed
        self._place = sorted(world.adversaries).index(node) if node in world.adversaries else 0
        self.loss: float | None = None
        """Of the newest training."""

    @override
    def train(self, step: int, state: State[Model], then: Callable[[TrainResult], None]) -> None:
        files = {part: self._world.changes.new() for part in ("model", "buffers", *self._world.parts)}
        work = self._world.workers.train(self._world.train_job(self._node, step, state, files))

        def has_trained(result: TrainResult) -> None:
            total = result.metrics.get("loss")
            self.loss = total[0] / total[1] if isinstance(total, tuple) and total[1] else self.loss
            then(result)

        self._world.timeline.after(1.0 / self._speed, has_trained, work)

    @override
    def apply(
        self,
        moment: Moment,
        state: State[Model],
        trained: TrainResult | None,
        scale: float,
        then: Callable[[State[Model]], None],
    ) -> None:
        files = {part.name: part.path for part in trained.parts} if trained is not None else {}
        change, buffers = files.get("model"), files.get("buffers")

        def applied(state: State[Model]) -> None:
            for path in files.values():
                self._world.changes.drop(path)
            then(state)

        job = replace(self._job(moment, state), applies=True, change=change, scale=scale, buffers=buffers)
        if parts := tuple(files[part] for part in self._world.parts if part in files):
            job = replace(job, body=self._world.models.new(), parts=parts)
        elif self._world.is_encoded and moment.given:
            job = replace(job, body=self._world.models.new(), given=moment.given, is_whole=moment.is_whole)
        self._make(job, state, applied)

    @override
    def mix(
        self,
        moment: Moment | None,
        state: State[Model],
        portions: Sequence[Piece[Model]],
        then: Callable[[State[Model]], None],
    ) -> None:
        mixed = tuple(Portion(piece.body.path, piece.part, piece.sender, piece.step) for piece in portions)
        self._make(replace(self._job(moment, state), portions=mixed), state, then)

    def forge(
        self,
        attack: PeerAttack,
        step: int,
        own: Model,
        known: Sequence[Model],
        receiver: Model | None,
        then: Callable[[Model], None],
    ) -> None:
        """As `covey.node.gossip.adversary.Forger`."""
        models, target = self._world.models, receiver.path if receiver is not None else None
        forgery = attack.forgery(self._world.seed, self._place, [model.path for model in known], target)
        job = MixJob(
            self._world.layout_of(self._node), own.path, models.new(), step=step, forgery=forgery, synced=False
        )

        def has_forged(result: MixResult) -> None:
            then(models.model(job.out, result.model_sha256))

        self._world.timeline.after(0.0, has_forged, self._world.workers.mix(job))

    def _job(self, moment: Moment | None, state: State[Model]) -> MixJob:
        """A job that begins with what the node has, and changes nothing."""
        world, now = self._world, moment or Moment(0)
        return MixJob(
            world.layout_of(self._node),
            state.model.path,
            world.models.new(),
            spec_json=world.spec_json if moment is not None else "",
            step=now.step,
            place=world.places[self._node],
            allow_path=True,
            kept=state.kept.path if state.kept is not None else None,
            out_kept=world.models.new(),
            weight=now.weight,
            evictions=now.evictions,
            leaves=now.leaves,
            peers=tuple(map(str, now.peers)),
            synced=False,
            may_stay=True,
        )

    def _make(self, job: MixJob, state: State[Model], then: Callable[[State[Model]], None]) -> None:
        models = self._world.models

        def has_mixed(result: MixResult) -> None:
            kept = state.kept.hold() if state.kept is not None else None
            if job.out_kept is not None and result.kept is not None:
                if kept is not None:
                    kept.release()
                kept = models.model(job.out_kept, "")
            elif job.out_kept is not None:
                models.drop(job.out_kept)
            coded = None
            if job.body is not None and result.body is not None:
                coded = models.model(job.body, "")
            elif job.body is not None:
                models.drop(job.body)
            if result.artifact is not None:
                model = models.model(job.out, result.model_sha256)
            else:
                models.drop(job.out)
                model = state.model.hold()
            then(State(model, kept, coded))

        self._world.timeline.after(0.0, has_mixed, self._world.workers.mix(job))

    @override
    def hold(self, model: Model) -> Model:
        return model.hold()

    @override
    def release(self, model: Model) -> None:
        model.release()


class VirtualPeer:
    """A node of a simulated gossip run.

    Args:
        machine: Its machine.
        model: What it begins with; it is held from now on.
        world: What it shares with the others.
        speed: How many steps of training it does in a unit of time.
        fresh: For one that may be killed and started again: makes the machine with which it begins where it had
            published nothing. None: it is never started again, and keeps no record.
    """

    def __init__(
        self, machine: PushSum, model: Model, world: World, speed: float, fresh: Callable[[], PushSum] | None = None
    ) -> None:
        self._first, self._world, self._fresh = model, world, fresh
        self._record = VirtualRecord() if fresh is not None else NoRecord()
        self.labour = VirtualLabour(machine.me.node, world, speed)
        post, clock = VirtualPost(machine.me, world), VirtualClock(world.timeline)
        attack = world.adversaries.get(machine.me.node)
        self._adversary: AdversaryPost[Model] | None = None
        if attack is not None:
            self._adversary = AdversaryPost(post, attack, self.labour, tuple(world.adversaries))
        self._ports = Ports(self._adversary or post, self.labour, self._record, clock, world.planner)
        self.executor = Executor(machine, State(model), self._ports, self._ended)
        self.is_ready = True
        """It says something; one that joins does not before it has its model."""

    def _ended(self) -> None:
        self._world.ended(self)

    @property
    def me(self) -> Incarnation:
        """Which one."""
        return self.executor.me

    @property
    def step(self) -> int:
        """The step that it is in, or how many it did."""
        return self.executor.machine.step

    @property
    def ledger(self) -> Ledger:
        """Its account."""
        return self.executor.ledger

    @property
    def reason(self) -> str:
        """How it ended; empty: it did not."""
        return self.executor.finished if self.executor.is_up else "died"

    @property
    def is_up(self) -> bool:
        """Whether it can still answer."""
        return self.reason not in ("died", "left")

    @property
    def is_new(self) -> bool:
        """Whether it has not begun."""
        return self.executor.machine.phase == "new"

    def has_heard(self, names: Iterable[Incarnation]) -> bool:
        """Whether it knows how far these are, where it has its model and they take part."""
        peers = self.executor.machine.exchange.peers
        return self.is_ready and all(peers[name].is_known for name in names if name in peers)

    def newest(self) -> Model:
        """The model that a peer that joins begins with."""
        return self.executor.model if self._world.is_encoded else self.executor.newest()[0]

    def take_over(self, model: Model) -> None:
        """Before it begins: have a peer's model in place of the first one."""

        def has_taken_over() -> None:
            model.release()
            self.is_ready = True

        self.is_ready = False
        self.executor.take_over(model.hold(), has_taken_over)

    def take(self, event: ev.Event, body: Model | None = None) -> None:
        """Give the node an event."""
        if self.is_up:
            self.executor.take(event, body)
            if self._adversary is not None and isinstance(event, ev.Arrived) and body is not None:
                self._adversary.saw(event.peer, body)

    def begin(self) -> None:
        """Take part from now on, or go on after `restore`."""
        self.executor.begin()

    def stop(self) -> None:
        """End without a word; what the record has stays."""
        self.executor.stop()

    def die(self) -> None:
        """End without a word, for good."""
        self.stop()
        self.executor.bodies.drop_all()

    def restore(self) -> None:
        """Be as the record says, after `stop`; raises TypeError where there is none."""
        if not isinstance(self._record, VirtualRecord) or self._fresh is None:
            raise TypeError(f"{self.me} keeps no record")
        before = self.executor
        self.executor = Executor.restored(self._record.saved, self._fresh(), self._first, self._ports, self._ended)
        self.executor.hours = replace(before.hours, ended=None)
        before.bodies.drop_all()  # not its model: what it was at work on may still be read
        self.is_ready = True

    def beat(self) -> None:
        """Say where this node is, and send again what is not acknowledged."""
        self.executor.beat()
