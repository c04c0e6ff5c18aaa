"""A gossip node's work with models: jobs for its worker, whose files are held while they are read, and once made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import structlog
from typing_extensions import override

from covey import faults
from covey.artifact import Artifact
from covey.errors import Obstructed
from covey.gossip.protocols.encoding import is_encoded, training_spec
from covey.metrics import counted, ratios
from covey.node.gossip.adversary import PeerAttack
from covey.node.gossip.diary import Diary, SpanKind
from covey.node.gossip.obstacles import Obstacles
from covey.node.gossip.ports import Labour, Moment, Piece, State
from covey.node.models.holders import Holders
from covey.node.operator.config import NodeConfig
from covey.node.ports import Files, Worker
from covey.spec import GossipSpec
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.jobs.operations import MIX, TRAIN
from covey.worker.jobs.training import TrainJob, TrainResult

log = structlog.get_logger(room="gossip")
PARTS = ("model", "buffers")
"""What a local training writes."""


class Spawn(Protocol):
    """Begins work beside everything else; what it raises ends the node's part."""

    def __call__(self, work: Coroutine[Any, Any, None]) -> object:
        """Begin."""


@dataclass(frozen=True)
class Course:
    """What all jobs of a run share.

    Attributes:
        name: The run's.
        spec: Its specification.
        layout: As JSON.
        place: Of this node among all: which part of experiment data is its own.
        nodes: How many nodes take part from the beginning.
        body_bytes: The size of a model file with the vectors that travel.
        kept_bytes: The size of the file of what stays; 0: nothing does.
        parts: Of a method, that are sent in place of the model.
        node: This node's name.
        own_models: Whether nodes keep models of their own, which no other gets to begin with.
    """

    name: str
    spec: GossipSpec
    layout: str
    place: int
    nodes: int
    body_bytes: int
    kept_bytes: int = 0
    parts: tuple[str, ...] = ()
    node: str = ""
    own_models: bool = False


class WorkerLabour(Labour[Artifact, TrainResult]):
    """`covey.node.gossip.ports.Labour`, done by the node's worker.

    Args:
        course: The run's.
        config: What the operator allows, and where the node's data are.
        holders: Of the node's files.
        worker: The node's.
        spawn: Begins work.
        diary: Notes when each job was done.
        obstacles: What is waited for.
        synced: Whether models that are made here must survive a power cut.
    """

    def __init__(
        self,
        course: Course,
        config: NodeConfig,
        holders: Holders[Files],
        worker: Worker,
        spawn: Spawn,
        diary: Diary,
        obstacles: Obstacles,
        *,
        synced: bool = True,
    ) -> None:
        self._diary, self._obstacles = diary, obstacles
        self._course, self._config, self._worker, self._spawn = course, config, worker, spawn
        self._holders, self._files, self._synced = holders, holders.files, synced
        self.metrics: dict[str, float] = {}
        """What the newest training measured."""
        self.filters: tuple[str, ...] | None = None
        """Which of the site's it has passed; None: there was none yet."""

    @override
    def train(self, step: int, state: State[Artifact], then: Callable[[TrainResult], None]) -> None:
        self._begin(state.files, lambda: self._train(step, state, then))

    def _begin(self, reads: Sequence[Artifact], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin work that reads models: whoever else lets go of them, they stay until it is done."""
        for model in reads:
            self.hold(model)
        self._spawn(self._reading(reads, work))

    async def _reading(self, reads: Sequence[Artifact], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        finally:
            for model in reads:
                self.release(model)

    async def _train(self, step: int, state: State[Artifact], then: Callable[[TrainResult], None]) -> None:
        with self._diary.work("train"):
            result = await self._obstacles.passed("train", lambda: self._trained(step, state))
        faults.reach("gossip-trained")
        self.metrics, self.filters = dict(counted(ratios(result.metrics))), result.filters
        then(result)

    async def _trained(self, step: int, state: State[Artifact]) -> TrainResult:
        course, config = self._course, self._config
        job = TrainJob(
            run=course.name,
            spec_json=training_spec(course.spec).to_json(),
            layout=course.layout,
            round=step + 1,
            roster_index=course.place,
            num_partitions=course.spec.data.parts or course.nodes,
            base=self._files.path(state.model.digest),
            scratch={part: self._files.scratch(0) for part in (*PARTS, *course.parts)},
            collected=self._files.path(state.kept.digest) if state.kept is not None else None,
            task_options=course.spec.task.nodes.get(course.node, {}),
            node_paths=config.paths,
            node_options=config.options,
            allow_path=config.allows_paths(course.spec),
            stall_s=course.spec.training.stall_s,
            limits=config.train_limits,
            filters=config.filters,
        )
        try:
            return await self._worker.do(TRAIN, job)
        except Obstructed:  # it writes no more, and what it wrote is in its way
            self._discard(job.scratch.values())
            raise

    @override
    def apply(
        self,
        moment: Moment,
        state: State[Artifact],
        trained: TrainResult | None,
        scale: float,
        then: Callable[[State[Artifact]], None],
    ) -> None:
        written = {part.name: part.path for part in trained.parts} if trained is not None else {}
        change, buffers = written.get("model"), written.get("buffers")

        def job() -> MixJob:
            whole = replace(self._job(moment, state), applies=True, change=change, scale=scale, buffers=buffers)
            if parts := tuple(written[part] for part in self._course.parts if part in written):
                return replace(whole, body=self._files.scratch(0), parts=parts)
            if is_encoded(self._course.spec) and moment.given:
                return replace(whole, body=self._files.scratch(0), given=moment.given, is_whole=moment.is_whole)
            return whole

        self._begin(state.files, lambda: self._make("apply", job, state, then, tuple(written.values())))

    @override
    def mix(
        self,
        moment: Moment | None,
        state: State[Artifact],
        portions: Sequence[Piece[Artifact]],
        then: Callable[[State[Artifact]], None],
    ) -> None:
        parts = tuple(Portion(self._files.path(p.body.digest), p.part, p.sender, p.step) for p in portions)
        reads = [*state.files, *(piece.body for piece in portions)]

        def job() -> MixJob:
            return replace(self._job(moment, state), portions=parts)

        self._begin(reads, lambda: self._make("mix", job, state, then))

    def forge(
        self,
        attack: PeerAttack,
        step: int,
        own: Artifact,
        known: Sequence[Artifact],
        receiver: Artifact | None,
        then: Callable[[Artifact], None],
    ) -> None:
        """As `covey.node.gossip.adversary.Forger`."""
        course, files = self._course, self._files
        target = files.path(receiver.digest) if receiver is not None else None
        paths = [files.path(model.digest) for model in known]
        forgery = attack.forgery(course.spec.seed, course.place, paths, target)

        def job() -> MixJob:
            return replace(self._job(None, State(own)), step=step, forgery=forgery)

        log.warning("DRILL: what is sent is an attack", attack=attack.name, step=step)
        reads = [own, *known, *([receiver] if receiver is not None else [])]
        self._begin(reads, lambda: self._make("forge", job, State(own), lambda state: then(state.model)))

    def _job(self, moment: Moment | None, state: State[Artifact]) -> MixJob:
        """A job that begins with what the node has, and changes nothing."""
        course, now = self._course, moment or Moment(0)
        return MixJob(
            course.layout,
            self._files.path(state.model.digest),
            self._files.scratch(course.body_bytes),
            spec_json=course.spec.to_json() if moment is not None else "",
            step=now.step,
            place=course.place,
            allow_path=self._config.allows_paths(course.spec),
            kept=self._files.path(state.kept.digest) if state.kept is not None else None,
            out_kept=self._files.scratch(course.kept_bytes) if course.kept_bytes else None,
            weight=now.weight,
            evictions=now.evictions,
            leaves=now.leaves,
            peers=tuple(map(str, now.peers)),
            synced=self._synced,
            may_stay=True,
            described=False,
        )

    async def _make(
        self,
        kind: SpanKind,
        new_job: Callable[[], MixJob],
        state: State[Artifact],
        then: Callable[[State[Artifact]], None],
        used: Sequence[Path] = (),
    ) -> None:
        with self._diary.work(kind):
            job, result = await self._obstacles.passed(kind, lambda: self._done(new_job()))
        for position in result.refused:
            digest = job.portions[position].model.name
            log.warning(
                "a peer sent what is no finite body of this run: its mass counts, what it sent does not", file=digest
            )
        written = ((job.out, result.artifact), (job.out_kept, result.kept), (job.body, result.body))
        unused = [path for path, file in written if file is None]
        self._discard((*used, *filter(None, unused)))
        state = State(result.artifact or state.model, result.kept or state.kept, result.body)
        for file in state.files:
            self.hold(file)
        for file in _made(result):
            self.release(file)
        then(state)

    async def _done(self, job: MixJob) -> tuple[MixJob, MixResult]:
        """What came of a job; the files that it made are held, once each."""
        held = list[Artifact]()
        try:
            result = await self._worker.do(MIX, job)
            faults.reach("gossip-made")
            held = [self.hold(file) for file in _made(result)]  # before they are there: a peer may bring the same
            await asyncio.to_thread(self._keep, job, result)
        except Obstructed:
            for file in held:
                self.release(file)
            self._discard(path for path in (job.out, job.out_kept, job.body) if path is not None)
            raise
        return job, result

    def _discard(self, paths: Iterable[Path]) -> None:
        """Drop scratch files; what the disk keeps is dropped at the next start."""
        for path in paths:
            with contextlib.suppress(Obstructed):
                self._files.discard(path)

    def _keep(self, job: MixJob, result: MixResult) -> None:
        if result.artifact is not None:
            self._files.adopt(job.out, result.artifact, durable=self._synced)
        if job.out_kept is not None and result.kept is not None:
            self._files.adopt(job.out_kept, result.kept, durable=self._synced)
        if job.body is not None and result.body is not None:
            self._files.adopt(job.body, result.body, durable=self._synced)

    @override
    def hold(self, model: Artifact) -> Artifact:
        self._holders.hold(model.digest)
        return model

    @override
    def release(self, model: Artifact) -> None:
        self._holders.release(model.digest)


def _made(result: MixResult) -> list[Artifact]:
    return [file for file in (result.artifact, result.kept, result.body) if file is not None]
