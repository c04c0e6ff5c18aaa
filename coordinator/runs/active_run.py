"""What the runners of both modes share: the queue of events, evaluation, retention, the end of a run.

A runner feeds events to its machine and does what the machine asks for, in order. Everything durable happens before
the next action; what the worker does goes on beside the events.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import structlog

from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.admin.metrics import RunFacts
from covey.coordinator.environment import Environment
from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.runs.assignments import Extras, evaluation_assignment
from covey.coordinator.runs.preparation import Prepared
from covey.errors import CoveyError, Fenced
from covey.protos import coordinator_pb2 as pb
from covey.spec import RunSpec
from covey.storage.record.contract import EventRecord, RunRecord, VersionRecord
from covey.worker.jobs.messages import EvaluateJob

log = structlog.get_logger(room="coordinator")
Metrics = Mapping[str, Sequence[float]]
"""Metric name to [total, count], as nodes and workers report them."""


@dataclass
class NodeState:
    """What a node does in its open round, for people who watch."""

    phase: str = "invited"
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    seconds: float = 0.0


class Machine(Protocol):
    """A pure state machine; each mode has one."""

    @property
    def state(self) -> str:
        """What the run is doing: `idle` (no work is out), `finishing`, `done`, or a state of the mode's own."""

    @property
    def done(self) -> bool:
        """Whether the run is in a terminal state."""

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest; None: only an event can move it."""

    @property
    def committed(self) -> int:
        """The newest committed version."""

    def handle(self, event: Any) -> Sequence[Any]:
        """Take one event; what is to be done, in order."""

    def collects(self, node: str, number: int) -> bool:
        """Whether this node works, or has worked, on this round while it is open."""

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's answer for this round is still to come."""


M = TypeVar("M", bound=Machine)


class RunBase(ABC, Generic[M]):
    """One run under this coordinator's care."""

    def __init__(self, env: Environment, run: RunRecord) -> None:
        self.env, self.run = env, run
        self.machine: M | None = None
        self.prepared: Prepared | None = None
        self.base: VersionRecord | None = None
        self.progress: dict[str, NodeState] = {}
        self.bytes_received = self.bytes_sent = 0
        self.facts = RunFacts(run.run, run.name, run.mode)
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._small_model = "", b""
        self._evaluations: dict[str, Metrics] = {}
        self._log = log.bind(run=run.run, name=run.name)

    # -- the outside ----------------------------------------------------------------------------------------------

    def post(self, event: Any) -> None:
        """Tell the run's machine something; it is taken in order."""
        self._events.put_nowait(event)

    def collecting(self, node: str, number: int) -> bool:
        """Whether this node has a part in this round, and the round is open."""
        return self.machine is not None and self.machine.collects(node, number)

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's update for this round is still to come: the record has none of it."""
        return self.machine is not None and self.machine.expects(node, number)

    def moved(self, node: str, state: NodeState) -> None:
        """A node said how far it is."""
        self.entered(node, state)
        self.env.changes.notify()

    def entered(self, node: str, state: NodeState) -> None:
        """This is what a node does in its open round, or how its part ended."""
        self.progress[node] = state
        self.env.metrics.entered(node, state.phase)

    def received(self, node: str, count: int) -> None:
        """So many bytes of an update came from a node."""
        self.bytes_received += count
        self.env.metrics.received.labels(node).inc(count)

    def sent(self, node: str, count: int) -> None:
        """So many bytes of a model went to a node."""
        self.bytes_sent += count
        self.env.metrics.sent.labels(node).inc(count)

    @abstractmethod
    def open_round(self, node: str) -> int:
        """The number of the round that an answer of this node would be for now; 0: none."""

    @abstractmethod
    def base_of(self, node: str, number: int) -> VersionRecord:
        """The version that this node's update for a round that expects it starts from."""

    @abstractmethod
    def served(self, node: str, digest: str) -> Artifact | None:
        """The file of this digest, if the node may download it now."""

    async def execute(self) -> None:
        """Care for the run until it is in a terminal state."""
        try:
            await self._execute()
        except (Fenced, asyncio.CancelledError):
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, CoveyError) else f"internal error: {error!r}"
            self._log.exception("the run failed")
            await self._finish(ev.FinishRun("failed", reason))
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _execute(self) -> None:
        await self._begin()
        await self._state_facts()
        now = self.env.now()
        first: list[ev.Event] = [ev.PauseChanged(self.env.paused, now), ev.Started(now)]
        first += [ev.NodeJoined(node, now) for node in self.env.sessions.nodes()]
        for event in first:
            await self._handle(event)
        while self.machine is not None and not self.machine.done:
            await self._handle(await self._next_event())

    @abstractmethod
    async def _begin(self) -> None:
        """Prepare the run and make its machine."""

    async def _state_facts(self) -> None:
        """What metrics show of the run, from the record."""
        store = self.env.store
        self.facts.asked, self.facts.committed = self.ready().spec.rounds_in_all, self.newest().version
        if self.facts.committed:
            for version in await store.persist(store.store.versions, self.run.run):
                self.facts.note(version.metrics)

    async def _expected(self) -> dict[str, float]:
        """The nodes that are here or may come back, with the time each was last seen."""
        return {
            node.node: max(node.last_seen_at or node.enrolled_at, self.env.started_at)
            for node in await self.env.store.persist(self.env.store.store.nodes)
            if node.state == "active"
        } | dict.fromkeys(self.env.sessions.nodes(), self.env.now())

    async def _next_event(self) -> Any:
        if self._crash is not None:
            raise self._crash
        wake_at = self.machine.wake_at if self.machine else None
        timeout = None if wake_at is None else max(0.0, wake_at - self.env.now())
        try:
            async with asyncio.timeout(timeout):
                return await self._events.get()
        except TimeoutError:
            return ev.Tick(self.env.now())

    async def _handle(self, event: Any) -> None:
        if self.machine is None:
            return
        for action in self.machine.handle(event):
            await self._do(action)
        self.facts.committed = self.machine.committed
        self.env.changes.notify()

    # -- actions of both modes ------------------------------------------------------------------------------------

    @abstractmethod
    async def _do(self, action: Any) -> None:
        """Do what the machine asks for; `_do_shared` does what both modes have."""

    async def _do_shared(self, action: ev.SharedAction) -> None:
        match action:
            case ev.Cancel(node=node, round=number, reason=reason):
                cancel = pb.Cancel(run=self.run.run, round=number, reason=reason)
                self.env.sessions.send(node, pb.CoordinatorMessage(cancel=cancel))
            case ev.EvaluateCentrally(version=version):
                self._spawn(self._evaluate(version))
            case ev.AssignEvaluation(node=node):
                base, extras = self.newest(), self._extras(node)
                data = self._inline(base, node) if extras.change is None else b""
                message = evaluation_assignment(self.run, base, data, self._index(node), extras)
                self.env.sessions.send(node, pb.CoordinatorMessage(assignment=message))
            case ev.Report(reason=reason):
                self.facts.waiting = bool(reason)
                if reason:
                    self._log.info("waiting", reason=reason)
                await self.env.store.persist(self.env.store.store.set_reason, self.run.run, reason)
            case ev.FinishRun():
                await self._finish(action)

    def _extras(self, node: str) -> Extras:
        """What this node's assignments carry beside the model."""
        return Extras()

    async def _extend_roster(self, roster: tuple[str, ...]) -> None:
        if roster == self.run.roster:
            return
        spec = self.ready().spec
        parts = self.run.parts or spec.data.parts or len(roster)
        store = self.env.store
        await store.persist(store.store.extend_roster, self.run.run, roster, parts)
        self.run = replace(self.run, roster=roster, parts=parts)

    def _prune(self, spec: RunSpec, pinned: Sequence[int]) -> None:
        dropped = self.env.store.store.prune(
            self.run.run,
            versions=spec.keep.versions,
            updates=spec.keep.updates,
            metric=spec.evaluation.metric,
            goal=spec.evaluation.goal,
            pinned=pinned,
        )
        if self.env.held_releases is not None:
            self.env.held_releases.extend(dropped)
        else:
            self.env.files.release(dropped)

    async def _evaluate(self, version: int) -> None:
        store, metrics = self.env.store, {}
        try:
            record = await store.persist(store.store.version, self.run.run, version)
            if record.kept and self.env.files.has(record.artifact.digest):
                path = self.env.files.path(record.artifact.digest)
                job = EvaluateJob(
                    run=self.run.run,
                    spec_json=self.run.spec,
                    model=path,
                    where="central",
                    allow_path=self.env.config.allow_paths,
                )
                with self.env.metrics.round_phases.labels("evaluating").time():
                    totals = await self.env.worker.use(lambda worker: worker.evaluate(job))
                # JSON knows no NaN: what is not finite comes back as None.
                known = {name: math.nan if total is None else total for name, (total, _) in totals.items()}
                metrics = {name: known[name] / count for name, (_, count) in totals.items() if count}
        except CoveyError as error:
            self._log.warning("evaluation failed", version=version, error=str(error))
        await store.persist(store.store.record_metrics, self.run.run, version, metrics, evaluated=True)
        self.facts.note(metrics)
        self._log.info("evaluated", version=version, **{k: round(v, 4) for k, v in metrics.items()})
        self.post(ev.Evaluated(version, self.env.now()))

    async def node_evaluated(self, node: str, version: int, totals: Metrics) -> None:
        """A node answered an evaluation of the last version."""
        if self.machine and self.machine.state == "finishing" and version == self.machine.committed:
            self._evaluations[node] = totals
            merged = merged_metrics(self._evaluations.values(), "")
            if merged:
                store = self.env.store
                await store.persist(store.store.record_metrics, self.run.run, version, merged, evaluated=False)
                self.facts.note(merged)
        self.post(ev.NodeEvaluated(node, version, self.env.now()))

    async def _finish(self, action: ev.FinishRun) -> None:
        if action.state == "completed":
            await asyncio.gather(*self._tasks, return_exceptions=True)
        store, now = self.env.store, self.env.now()
        await store.persist(store.store.finish_run, self.run.run, action.state, action.reason, now)
        self._count_end(action.state)
        if self.base is not None and self.prepared is not None:
            await store.persist(self._prune, self.prepared.spec, [self.base.version])
        detail = {"state": action.state, "reason": action.reason}
        await store.persist(store.store.add_event, EventRecord(now, "run-finished", self.run.run, detail=detail))
        for node in self.env.sessions.nodes():
            cancel = pb.Cancel(run=self.run.run, round=0, reason=f"the run is {action.state}")
            self.env.sessions.send(node, pb.CoordinatorMessage(cancel=cancel))
        self._log.info("run finished", state=action.state, reason=action.reason)
        self.env.changes.notify()

    def _count_end(self, state: str) -> None:
        metrics = self.env.metrics
        metrics.runs.labels(state).inc()
        if state == "failed" and self.progress:
            metrics.rounds.labels("failed").inc()
        for node in self.progress:
            metrics.entered(node, state)

    # -- small things ---------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("background work failed", exc_info=task.exception())
            self._crash = task.exception()
            self.post(ev.Tick(self.env.now()))

    def ready(self) -> Prepared:
        """What was prepared before the first round."""
        if self.prepared is None:
            raise RuntimeError("the run is not prepared")
        return self.prepared

    def newest(self) -> VersionRecord:
        """The newest version."""
        if self.base is None:
            raise RuntimeError("the run has no version")
        return self.base

    def _inline(self, base: VersionRecord, node: str) -> bytes:
        """A base model's file, if it is small enough to travel with a node's assignment."""
        if base.artifact.size_bytes > INLINE_BYTES:
            return b""
        if self._small_model[0] != base.artifact.digest:
            self._small_model = base.artifact.digest, self.env.files.path(base.artifact.digest).read_bytes()
        self.sent(node, base.artifact.size_bytes)
        return self._small_model[1]

    def _index(self, node: str) -> int:
        return self.run.roster.index(node)


def reported_loss(metrics: Metrics) -> float | None:
    """The mean training loss among an update's metrics; None if there is none, or it is not a number."""
    total, count = metrics.get("loss", (0.0, 0.0))
    loss = total / count if count else math.nan
    return loss if math.isfinite(loss) else None


def merged_metrics(parts: Iterable[Metrics], prefix: str) -> dict[str, float]:
    """Merge several nodes' metrics whose names begin with `prefix` into ratios named `nodes/NAME`."""
    totals: dict[str, list[float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            if name.startswith(prefix):
                entry = totals.setdefault(name.removeprefix(prefix), [0.0, 0.0])
                entry[0] += total
                entry[1] += count
    return {f"nodes/{name}": total / count for name, (total, count) in totals.items() if count}
