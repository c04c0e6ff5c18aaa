"""One run under this coordinator's care: its driver, and what is done alike in every mode.

Events go to the mode's machine, and what it asks for is done in order: everything durable before the next action; what
the worker does goes on beside the events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import structlog

from covey import faults
from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.runs.assignments import AssignmentInputs, assignment, evaluation_assignment
from covey.coordinator.runs.facts import NodeProgress, RunFacts
from covey.coordinator.runs.layouts import keep_layout, layout_file
from covey.coordinator.runs.mode import Mode, RunMachine
from covey.coordinator.runs.ports import RunServices
from covey.coordinator.runs.progress import RunProgress
from covey.coordinator.runs.sent_again import Resent
from covey.coordinator.runs.steps.absentees import left_out
from covey.coordinator.runs.steps.commit import MadeStep, adopt_files, discard_scratch, hold_version, secure_files
from covey.coordinator.runs.steps.damage import check_files, intact_bytes
from covey.coordinator.runs.steps.evaluation import NodeMetrics, RunEvaluation
from covey.coordinator.runs.steps.preparation import Prepared, expected_nodes, prepare
from covey.coordinator.runs.steps.stopping import number_of
from covey.driver.driver import Driver
from covey.errors import CoveyError, Fenced
from covey.machines import protocol as pr
from covey.machines.shortage import listed
from covey.storage.record.contract import EventRecord, RoundRecord, RunRecord, StepRecord, Store, VersionRecord

P = ParamSpec("P")
R = TypeVar("R")
PRUNE_EVERY = 4
PRUNE_BYTES = 4 << 20
"""Files that are not needed any more wait for so many commits, or until so many bytes have come since the last time."""
log = structlog.get_logger(room="coordinator")
LONG_S = 10.0
"""An evaluation at the end that takes longer is said."""


class ActiveRun:
    """One run under this coordinator's care.

    Args:
        services: What it is given.
        run: The run, as it is recorded.
        mode_of: Makes its mode.
    """

    def __init__(self, services: RunServices, run: RunRecord, mode_of: Callable[[ActiveRun], Mode]) -> None:
        self.services, self.run = services, run
        self.log = log.bind(run=run.run, name=run.name)
        self.progress = RunProgress(run.run, services.metrics, services.now)
        self.driver = Driver[Any, Any](
            self._do,
            clock=services.clock,
            tick=pr.Tick,
            on_handled=self._handled,
            recorder=services.record_events(run) if services.record_events is not None else None,
            repeats=_uploading_node,
        )
        self.mode = mode_of(self)
        self.facts = RunFacts(run.run, run.name, run.mode, self.mode.counts)
        self.evaluation = RunEvaluation(services, run, self.facts)
        self.machine: RunMachine | None = None
        self.prepared: Prepared | None = None
        self.base: VersionRecord | None = None
        """The newest version."""
        self.step = StepRecord.before_first(run.run)
        """The newest step."""
        self.heard_at = self.joined_at = services.clock()
        """When something last happened in it, and when a node last came to it, by the machines' clock."""
        self._small_model = "", b""
        self._evaluating: dict[str, float] = {}
        """Nodes that were asked to evaluate the last version, and have not answered, with the time of asking."""
        self._unpruned_commits = self._unpruned_bytes = 0

    # -- what the outside tells and asks --------------------------------------------------------------------------

    def post(self, event: Any) -> None:
        """Tell the run's machine something; it is taken in order."""
        self.heard_at = self.services.clock()
        if isinstance(event, pr.NodeJoined):
            self.joined_at = self.heard_at
        self.driver.post(event)

    @property
    def is_idle(self) -> bool:
        """Whether no round is open."""
        return self.machine is None or self.machine.state == "idle"

    @property
    def is_waiting(self) -> bool:
        """Whether it can do nothing by itself now: it waits for nodes, and not for the operator."""
        operator = self.services.operator
        return self.facts.waiting and not (operator.paused or operator.draining)

    @property
    def awaited(self) -> str:
        """What is in the way of the run now, or who of those that it waits for is away, in words; empty: nothing."""
        if obstacle := self.services.store.obstacle.text(self.run.run):
            return f"waiting: {obstacle}"
        stuck = [f"{node} waits: {now.waits_for}" for node, now in sorted(self.progress.nodes.items()) if now.waits_for]
        return "; ".join([*stuck, *filter(None, [self._awaited])])

    @property
    def _awaited(self) -> str:
        if self.machine is None or self.machine.state != "finishing":
            return self.mode.waits_for()
        late = self.services.clock() - LONG_S
        nodes = [node for node, since in self._evaluating.items() if since < late and node in self.services.nodes]
        return f"waiting for {listed(nodes)} to evaluate version {self.machine.committed}" if nodes else ""

    def collecting(self, node: str, number: int) -> bool:
        """Whether this node has a part in this round, and the round is open."""
        return self.machine is not None and self.machine.collects(node, number)

    def evaluates_later(self, node: str, version: int) -> None:
        """A node says that it works for another run first; of interest here if it is to evaluate the last version."""
        if self.machine is not None and self.machine.state == "finishing" and version == self.machine.committed:
            self.post(pr.NodeQueued(node, self.services.clock()))

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's update for this round is still to come: the record has none of it."""
        return self.machine is not None and self.machine.expects(node, number)

    def moved(self, node: str, progress: NodeProgress) -> None:
        """A node said how far it is."""
        self.heard_at = self.services.clock()
        self.progress.entered(node, progress)
        if progress.phase == "queued":
            self.post(pr.NodeQueued(node, self.services.clock()))
        else:
            self.mode.moved(node, progress)
        self.services.changes.notify()

    def resent(self, node: str, resent: Resent) -> None:
        """What passed before a transfer broke, and passes again."""
        self.progress.resent(node, self.mode.open_round(node), resent)

    async def node_evaluated(self, node: str, version: int, totals: NodeMetrics) -> None:
        """A node answered an evaluation of the last version."""
        if not self.evaluation.answers(node, version):
            return
        if self.machine and self.machine.state == "finishing" and version == self.machine.committed:
            await self.evaluation.note_node(node, version, totals)
        self._evaluating.pop(node, None)
        self.post(pr.NodeEvaluated(node, version, self.services.clock()))

    # -- from its taking up to its end ----------------------------------------------------------------------------

    async def execute(self) -> None:
        """Care for the run until it is in a terminal state; what goes wrong fails the run.

        Raises:
            Fenced: Another coordinator took over.
        """
        try:
            await self._execute()
        except Fenced:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, CoveyError) else f"internal error: {error!r}"
            self.log.exception("the run failed")
            await self._finish(pr.FinishRun("failed", reason))
        finally:
            self.services.files.hold(self.run.run, ())
            await self.driver.close()

    async def _execute(self) -> None:
        services = self.services
        self.prepared = prepared = await prepare(services, self.run)
        await self.persist(keep_layout, services.files, services.retention, prepared.run)
        if self.run.state == "queued":
            began = EventRecord(services.now(), "run-started", self.run.run)
            await self.persist(self.record.add_event, began)
        self.run, self.base = prepared.run, prepared.newest
        hold_version(services.files, prepared.newest)
        # Before anything from before a restart is used.
        await check_files(services, self.run.run)
        last: StepRecord | None = await self.persist(self.record.last_step, self.run.run)
        self.step = last or self.step
        machine = await self.mode.begin(prepared, await expected_nodes(services))
        await self._show_facts()
        self.machine = machine
        now, operator = services.clock(), services.operator
        first: list[pr.SharedEvent] = [pr.PauseChanged(operator.paused or operator.draining, now)]
        first += [pr.NodeRemoved(node, now) for node in self.run.roster if self._is_out(node)]
        first.append(pr.Started(now))
        first += [pr.NodeJoined(node, now) for node in services.nodes.nodes()]
        await self.driver.drive(machine, first)

    def _is_out(self, node: str) -> bool:
        return node in self.services.members.evicted or not self.services.nodes.takes(node)

    async def _show_facts(self) -> None:
        """What metrics show of the run, from the record."""
        self.facts.asked, self.facts.committed = self.ready().spec.rounds_in_all, self.newest().version
        if self.facts.committed:
            for version in await self.persist(self.record.versions, self.run.run):
                self.facts.note(version.metrics)

    def _handled(self) -> None:
        if self.machine is not None:
            self.facts.committed = self.machine.committed
        self.services.changes.notify()

    async def _finish(self, action: pr.FinishRun) -> None:
        if action.state == "completed":
            await self.driver.settle()
            if without := await self.persist(left_out, self.record, self.run.run, self.run.roster):
                self.log.warning("the run is completed without some of its nodes", without=without)
                action = replace(action, reason="; ".join(filter(None, [action.reason, without])))
        services, run, now = self.services, self.run.run, self.services.now()
        await self.persist(self.record.finish_run, run, action.state, action.reason, now)
        self.progress.ended(action.state)
        if self.base is not None and self.prepared is not None:
            await self.persist(self.prune, [self.base.version])
        await self.persist(services.retention.need_no_more, self.record, run)
        detail = {"state": action.state, "reason": action.reason}
        await self.persist(self.record.add_event, EventRecord(now, "run-finished", run, detail=detail))
        for node in services.nodes.nodes():
            services.nodes.send(node, msg.Cancel(run, 0, f"the run is {action.state}"))
        self.log.info("run finished", state=action.state, reason=action.reason)
        services.changes.notify()

    # -- what machines of all modes ask for -----------------------------------------------------------------------

    async def _do(self, action: Any) -> None:
        match action:
            case pr.Cancel(node=node, round=number, reason=reason):
                self.services.nodes.send(node, msg.Cancel(self.run.run, number, reason))
            case pr.EvaluateCentrally(version=version):
                self.driver.spawn(self._evaluate(version))
            case pr.AssignEvaluation(node=node):
                self._assign_evaluation(node)
            case pr.Report(reason=reason):
                await self._report(reason)
            case pr.FinishRun():
                await self._finish(action)
            case _:
                await self.mode.do(action)

    async def _evaluate(self, version: int) -> None:
        value = number_of(self.ready().spec.evaluation.metric, await self.evaluation.evaluate(version))
        self.post(pr.Evaluated(version, self.services.clock(), value))

    def _assign_evaluation(self, node: str) -> None:
        self._evaluating[node] = self.services.clock()
        base, inputs = self.newest(), self.mode.inputs(node)
        self.evaluation.asked[node] = base.version
        data = self._inline(base, node) if inputs.change is None else b""
        self.services.nodes.send(node, evaluation_assignment(self.run, base, data, self._index(node), inputs))

    async def _report(self, reason: str) -> None:
        self.facts.waiting, self.facts.lacks_place = reason not in ("", pr.NO_PLACE), reason == pr.NO_PLACE
        if reason:
            self.log.info("waiting", reason=reason)
        await self.persist(self.record.set_reason, self.run.run, reason)

    # -- what modes do alike --------------------------------------------------------------------------------------

    async def open(
        self,
        number: int,
        attempt: int,
        invited: tuple[str, ...],
        base: VersionRecord,
        roster: tuple[str, ...],
        part: int | None = None,
    ) -> float:
        """Record a round, or an attempt of it, before anything is sent; returns when."""
        await self.extend_roster(roster)
        now = self.services.now()
        record = RoundRecord(self.run.run, number, attempt, "collecting", invited, base.version, now, now, part=part)
        await self.persist(self.record.open_round, record)
        return now

    async def extend_roster(self, roster: tuple[str, ...]) -> None:
        """Record the nodes that have come since; the parts of experiment data are dealt to the first."""
        if roster == self.run.roster:
            return
        parts = self.run.parts or self.ready().spec.data.parts or len(roster)
        await self.persist(self.record.extend_roster, self.run.run, roster, parts)
        self.run = replace(self.run, roster=roster, parts=parts)

    def served(self, node: str, digest: str) -> Artifact | None:
        """The file of this digest, if the node may download it now."""
        file = layout_file(self.run.layout)
        return file if file is not None and file.digest == digest else self.mode.served(node, digest)

    def assign(
        self,
        node: str,
        number: int,
        attempt: int,
        base: VersionRecord,
        inputs: AssignmentInputs,
        *,
        part: int = -1,
        evaluate: bool = False,
        has_change: bool = False,
    ) -> None:
        """Send a recorded assignment to a connected node.

        Args:
            node: Its id.
            number: The round.
            attempt: Of the round.
            base: The version to train from.
            inputs: What comes along beside it.
            part: The part of experiment data that a newcomer takes; -1: that of the node's place in the roster.
            evaluate: Whether to evaluate the base first.
            has_change: Whether the node will make the base from the change: the model need not come along.
        """
        faults.reach("invite")
        data = b"" if has_change else self._inline(base, node)
        index = self._index(node)
        message = assignment(self.run, base, data, index, number, attempt, inputs, evaluate=evaluate, part=part)
        self.progress.entered(node, NodeProgress("invited"))
        self.services.nodes.send(node, message)

    async def commit(self, step: MadeStep, *, bytes_received: int) -> None:
        """Put a step's files under their names, then record it; `bytes_received` are those of the answers it took."""
        what = "phase" if step.record.opens else "commit"
        with self.services.metrics.phase("committing"):
            await secure_files(self.services, step)
            await self.persist(self._make_permanent, step, bytes_received, f"before-{what}")
        faults.reach(f"after-{what}")
        self.step = step.record
        self.base = step.version or self.base
        hold_version(self.services.files, self.newest())

    def _make_permanent(self, step: MadeStep, bytes_received: int, fault: str) -> None:
        adopt_files(self.services.files, step.job, step.result)
        faults.reach(fault)
        totals = {"bytes_received": bytes_received, "bytes_sent": self.progress.bytes_sent}
        self.record.commit_step(step.record, step.judged, step.version, **totals)
        if not step.record.opens:
            again = self.progress.sent_again.ended(step.record.group, self.run.run, self.services.now())
            if again is not None:
                self.record.add_event(again)
        discard_scratch(self.services.files, step.job, step.result)

    async def prune_when_due(self, pinned: Sequence[int], added_bytes: int) -> None:
        """Let files go after a commit that took in `added_bytes`; where they are few, not after every one."""
        self._unpruned_commits, self._unpruned_bytes = self._unpruned_commits + 1, self._unpruned_bytes + added_bytes
        if self._unpruned_commits >= PRUNE_EVERY or self._unpruned_bytes >= PRUNE_BYTES:
            self._unpruned_commits = self._unpruned_bytes = 0
            await self.persist(self.prune, pinned)

    def prune(self, pinned: Sequence[int]) -> None:
        """Let go of files that are not needed any more; those of the versions `pinned` are. In the record's thread."""
        self.services.retention.prune(self.record, self.run.run, self.ready().spec, pinned)

    # -- small things ---------------------------------------------------------------------------------------------

    @property
    def record(self) -> Store:
        """The record itself: its methods are for `persist`."""
        return self.services.store.store

    async def persist(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something in the record's thread; while the database is away, wait for it."""
        return await self.services.store.persist(method, *args, **kwargs)

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
            self._small_model = base.artifact.digest, intact_bytes(self.services.files, base.artifact)
        self.progress.sent(node, base.artifact.size_bytes)
        return self._small_model[1]

    def _index(self, node: str) -> int:
        return self.run.roster.index(node)


def _uploading_node(event: object) -> str | None:
    """Of whose upload bytes came, if this is such an event: these repeat."""
    return event.node if isinstance(event, pr.TransferProgressed) else None
