"""Mode `rounds`: does what the round machine of one run asks for."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

from typing_extensions import override

from covey import faults
from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.modes.rounds.answers import collected_files, judged, state_file
from covey.coordinator.modes.rounds.closing import Closing, step_job
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.coordinator.modes.rounds.preparation import opened_with, restore, round_policy_of
from covey.coordinator.modes.rounds.waiting import awaited, away_text
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.assignments import (
    AssignmentInputs,
    evaluates_first,
    free_part,
    input_files,
    method_files,
    wanted_parts,
)
from covey.coordinator.runs.facts import Counted, NodeProgress
from covey.coordinator.runs.mode import Mode
from covey.coordinator.runs.steps.commit import MadeStep, signed_version
from covey.coordinator.runs.steps.damage import forget_damaged, intact_bytes
from covey.coordinator.runs.steps.evaluation import metrics_made, of_accepted
from covey.coordinator.runs.steps.preparation import Prepared
from covey.coordinator.runs.steps.stopping import stop_rules, value_of_nodes
from covey.coordinator.runs.verdict_feedback import VerdictFeedback
from covey.errors import CoveyError, NotFound
from covey.metrics import EVALUATED
from covey.parts import rule_phase
from covey.storage.record.contract import EventRecord, StepRecord, UpdateRecord, VersionRecord, step_verdict
from covey.wire.identities.signing import CommitVerdict
from covey.worker.jobs.operations import STEP
from covey.worker.jobs.steps import StepResult


class RoundsMode(Mode):
    """One run's part that is mode `rounds`.

    Args:
        run: The run.
    """

    counts: Counted = "rounds"

    def __init__(self, run: ActiveRun) -> None:
        self._run, self._services = run, run.services
        self.machine: RoundMachine | None = None
        self._closing = Closing()
        self._feedback = VerdictFeedback()
        self._before: VersionRecord | None = None
        """The version before the newest."""
        self._holders: set[str] = set()
        """Nodes that surely have the version before the newest."""
        self._opened_at = 0.0
        """When the round was opened (monotonic seconds)."""
        self._collecting_since = 0.0
        """When its present attempt, or phase, was opened (monotonic seconds)."""
        self._params: dict[str, str] = {}
        """Node to what the method asks it with, in a phase after the first."""

    # -- the run's questions --------------------------------------------------------------------------------------

    @override
    def open_round(self, node: str) -> int:
        """One round is open for all."""
        return self.machine.round if self.machine else 0

    @override
    def open_phase(self, node: str) -> int:
        """All are in the same one."""
        return self.machine.phase if self.machine else 1

    @override
    def base_of(self, node: str, number: int) -> VersionRecord:
        """All start from the newest version."""
        return self._run.newest()

    @override
    def served(self, node: str, digest: str) -> Artifact | None:
        """The newest version, the change that led to it, or what the method keeps with it."""
        base = self._run.base
        if base is None:
            return None
        brought = (artifact for _, _, artifact in method_files(self._run.ready().description, base, node))
        files = [base.artifact, state_file(base, "change"), *brought]
        return next((file for file in files if file is not None and file.digest == digest), None)

    @override
    def moved(self, node: str, progress: NodeProgress) -> None:
        """Here, only bytes of an upload are a sign of progress."""

    @override
    def waits_for(self) -> str:
        machine = self.machine
        if machine is None:
            return ""
        if self._run.is_waiting:
            return away_text(machine.members)
        if machine.state != "collecting":
            return ""
        pending = [node for node in machine.asked if machine.expects(node, machine.round)]
        return awaited(machine.round, pending, machine.members.present, machine.policy.rejoin_s)

    @override
    def inputs(self, node: str) -> AssignmentInputs:
        """What codec and method have, and what became of the node's newest update."""
        base, description, phase = self._run.newest(), self._run.ready().description, self.open_phase(node)
        if phase > 1:  # nothing is trained any more
            wanted, params = wanted_parts(description, phase), self._params.get(node, "")
            return AssignmentInputs(node_state=description.node_state, wanted=wanted, phase=phase, params=params)
        broadcast = state_file(base, "broadcast")
        files = input_files(description, base, node, self._content)
        self._run.progress.sent(node, sum(len(file.data) for file in files))
        return AssignmentInputs(
            change=self._change_for(node),
            broadcast=self._content(broadcast) if broadcast else b"",
            feedback=self._feedback.of(node),
            node_state=description.node_state,
            inputs=files,
            wanted=wanted_parts(description),
            participants=len(self._at_work()),
        )

    def _content(self, artifact: Artifact) -> bytes:
        return intact_bytes(self._services.files, artifact)

    def _change_for(self, node: str) -> msg.Change | None:
        change = state_file(self._run.newest(), "change")
        if change is None:
            return None
        small = change.size_bytes <= INLINE_BYTES
        data = self._content(change) if small else b""
        self._run.progress.sent(node, len(data))
        return msg.Change(change, self._before.artifact.digest if self._before else "", data)

    # -- taking the run up ----------------------------------------------------------------------------------------

    @override
    async def begin(self, prepared: Prepared, expected: dict[str, float]) -> RoundMachine:
        run, base = self._run, prepared.newest
        rules = stop_rules(self._services, prepared)
        policy = round_policy_of(prepared, rules, keeps_deadlines=self._services.keeps_deadlines)
        restored = await run.persist(restore, run.record, run.run.run, policy)
        if restored.round:  # what came in before the restart counts
            updates = await run.persist(run.record.updates, run.run.run, restored.round)
            run.progress.bytes_received = sum(update.bytes for update in updates)
            record = await run.persist(run.record.round, run.run.run, restored.round)
            self._opened_at = self._monotonic(record.started_at)
            self._collecting_since = time.monotonic()
            self._params = await run.persist(opened_with, run.record, record)
        if prepared.description.node_state:
            load = VerdictFeedback.load
            self._feedback = await run.persist(load, run.record, run.run.run, run.run.roster, base.version)
        if state_file(base, "change") is not None:
            self._before = await run.persist(run.record.version, run.run.run, base.version - 1)
        self.machine = RoundMachine(policy, run.run.roster, expected=expected, restored=restored)
        return self.machine

    # -- actions --------------------------------------------------------------------------------------------------

    @override
    async def do(self, action: Any) -> None:
        match action:
            case ev.OpenRound():
                await self._open_round(action)
            case ev.OpenPhase():
                await self._open_phase(action)
            case ev.Assign():
                self._assign(action)
            case ev.RecordOutcome():
                await self._record_outcome(action)
            case ev.Aggregate():
                await self._begin_aggregation(action)
            case ev.Commit():
                await self._commit(action)

    async def _open_round(self, action: ev.OpenRound) -> None:
        run = self._run
        now = await run.open(action.round, action.attempt, action.invited, run.newest(), action.roster)
        if action.attempt == 1:
            run.progress.bytes_received = run.progress.bytes_sent = 0
            run.progress.nodes, self._opened_at = {}, self._monotonic(now)
        else:
            self._services.metrics.round_ended("retried")
        self._collecting_since, self._params = time.monotonic(), {}
        for node in action.invited:
            phase = "invited" if node in self._services.nodes else "away"
            run.progress.nodes.setdefault(node, NodeProgress(phase, since=now))
        run.log.info("round opened", round=action.round, attempt=action.attempt, invited=len(action.invited))

    async def _open_phase(self, action: ev.OpenPhase) -> None:
        run, job, result = self._run, *self._closing.outcome()
        rejected = [
            replace(update, verdict="rejected", reason=action.rejected[update.node])
            for update in self._closing.updates
            if update.node in action.rejected
        ]
        opens = [{"phase": action.phase, "node": node, "params": text} for node, text in action.params.items()]
        record = self._step(action.round, action.closed, rejected, self._services.now())
        step = MadeStep(job, result, replace(record, opens=tuple(opens)), rejected)
        await run.commit(step, bytes_received=run.progress.bytes_received)
        self._params, self._closing, self._collecting_since = dict(action.params), Closing(), time.monotonic()
        for node in {update.node for update in rejected}:
            run.progress.entered(node, NodeProgress("rejected"))
        self._services.metrics.judged((update.node, "rejected") for update in rejected)
        run.log.info("phase opened", round=action.round, phase=action.phase, asked=list(action.params))

    def _at_work(self) -> set[str]:
        """The nodes that have a part in the open round."""
        machine = self.machine
        if machine is None:
            return set()
        return {*machine.invited, *(node for node, answer in machine.answers.items() if answer == "received")}

    def _assign(self, action: ev.Assign) -> None:
        run, is_first = self._run.run, self.open_phase(action.node) == 1
        base, inputs = self._run.newest(), self.inputs(action.node)
        self._run.assign(
            action.node,
            action.round,
            action.attempt,
            base,
            inputs,
            part=free_part(run.roster, run.parts, self._at_work(), action.node),
            evaluate=is_first and evaluates_first(self._run.ready().spec, base),
            has_change=not is_first or (inputs.change is not None and action.node in self._holders),
        )

    async def _record_outcome(self, action: ev.RecordOutcome) -> None:
        run, at, phase, reason = self._run, self._services.now(), action.phase, action.reason
        if (progress := run.progress.nodes.get(action.node)) is not None and progress.waits_for:
            reason = f"{reason}; it waited: {progress.waits_for}"
        outcome = UpdateRecord(
            run.run.run, action.round, action.node, action.verdict, reason, received_at=at, phase=phase
        )
        with contextlib.suppress(NotFound):
            if action.verdict == "rejected" and run.ready().description.phases > 1:
                for other in await run.persist(self._other_phases, action):
                    await run.persist(run.record.record_outcome, replace(outcome, phase=other))
            # The record decides: the update may have become durable just before, and is then judged with the others.
            if await run.persist(run.record.record_outcome, outcome):
                self._note_outcome(action)

    def _other_phases(self, action: ev.RecordOutcome) -> list[int]:
        """Where else a node that is rejected has answered: a round that is tried again has answers of later phases."""
        updates = self._run.record.updates(self._run.run.run, action.round)
        sent = {update.phase for update in updates if update.node == action.node}
        return sorted({*sent, *range(1, action.phase)} - {action.phase})

    def _note_outcome(self, action: ev.RecordOutcome) -> None:
        run, reason = self._run, action.reason
        run.log.info("no update", node=action.node, round=action.round, verdict=action.verdict, reason=reason)
        run.progress.entered(action.node, NodeProgress(action.verdict))
        self._services.metrics.judged([(action.node, action.verdict)])

    # -- aggregation ----------------------------------------------------------------------------------------------

    async def _begin_aggregation(self, action: ev.Aggregate) -> None:
        self._services.metrics.phase_took("collecting", time.monotonic() - self._collecting_since)
        # What is durable decides: an update may have been recorded since the machine looked.
        answers = await self._run.persist(self._close_round, action.round)
        self._closing = Closing([answer for answer in answers if answer.verdict == "received"], answers)
        if not await self._asks_again(action.round):
            self._run.driver.spawn(self._aggregate(action))

    def _close_round(self, number: int) -> list[UpdateRecord]:
        record, run = self._run.record, self._run.run.run
        record.begin_aggregation(run, number)
        return record.updates(run, number)

    async def _asks_again(self, number: int) -> bool:
        """Whether updates of the round are lost: then nothing is made of the others, and the round is tried again."""
        run, files = self._run, self._services.files
        lost = await run.persist(
            forget_damaged, run.record, files, self._closing.answers, "when they were to be used", self._services.now()
        )
        if lost:
            self._closing.discard(files)
            nodes = tuple(update.node for update in lost if update.phase == 1)
            run.post(ev.UpdatesLost(number, nodes, self._services.clock()))
        return bool(lost)

    async def _aggregate(self, action: ev.Aggregate) -> None:
        run, closing = self._run, self._closing
        try:
            with self._services.metrics.phase("aggregating"):
                result = await self._services.store.obstacle.passed(lambda: self._make_step(closing))
        except CoveyError as error:
            closing.discard(self._services.files)
            if not await self._asks_again(action.round):
                run.log.exception("aggregation failed", round=action.round)
                run.post(ev.AggregationFailed(action.round, str(error)))
            return
        if await self._asks_again(action.round):  # damaged while they were used
            return
        if result.artifact is None:
            closing.discard(self._services.files)
        if result.opens is not None:
            planned, now = result.opens, self._services.clock()
            run.post(ev.PhasePlanned(action.round, planned.phase, planned.params, planned.rejected, now))
            return
        rejected = {row.node: row.reason for row in result.verdicts if not row.accepted}
        run.post(ev.Aggregated(action.round, result.enough, rejected, self._services.clock()))

    async def _make_step(self, closing: Closing) -> StepResult:
        """Have the worker make a step; files of an attempt that came to nothing are dropped."""
        closing.discard(self._services.files)
        closing.job = job = step_job(self._run, closing, self.open_phase(""))
        faults.reach("aggregate")
        closing.result = result = await self._services.worker.do(STEP, job)
        return result

    # -- commit ---------------------------------------------------------------------------------------------------

    async def _commit(self, action: ev.Commit) -> None:
        run, job, result = self._run, *self._closing.outcome()
        verdicts = judged(self._closing.updates, result, rule_phase(run.ready().description.parts))
        version = signed_version(
            self._services,
            run.newest(),
            result,
            [CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, phase=u.phase) for u in verdicts],
            round=action.round,
            metrics=metrics_made(run.ready().spec, result.metrics, verdicts),
            collected=collected_files(run.ready().description, run.newest(), verdicts),
        )
        took_s = time.monotonic() - self._opened_at
        record = self._step(action.round, self.open_phase(""), verdicts, version.created_at)
        step = MadeStep(job, result, replace(record, version=version.version), verdicts, version)
        self._before = run.base
        await run.commit(step, bytes_received=run.progress.bytes_received)
        self._closing = Closing()
        self._feedback.note(verdicts)
        self._count_commit(version, verdicts, took_s)
        self._holders = {update.node for update in verdicts}
        self._note_cap(action.round, verdicts)
        await self._note_fallback(action.round, result.rule)
        accepted = sum(update.verdict == "accepted" for update in verdicts)
        run.log.info("round committed", round=action.round, accepted=accepted, model=version.model_sha256[:12])
        sent_bytes, value = run.progress.bytes_received, value_of_nodes(run.ready(), verdicts)
        await run.driver.take(ev.RoundCommitted(action.round, self._services.clock(), sent_bytes, value))
        run.driver.spawn(self._after_commit(action.round, verdicts))

    def _note_cap(self, number: int, verdicts: list[UpdateRecord]) -> None:
        counted = {u.node: (u.weight, u.share) for u in verdicts if u.verdict == "accepted" and u.share > 0}
        if capped := self._run.ready().spec.weights.capped(counted):
            shares = {node: round(share, 4) for node, share in capped.items()}
            self._run.log.warning("weights.max_share bounds nodes", round=number, share_of_examples=shares)

    def _step(self, number: int, phase: int, verdicts: list[UpdateRecord], at: float) -> StepRecord:
        """The step that follows from a phase's answers."""
        run = self._run
        return StepRecord(
            run=run.run.run,
            number=run.step.number + 1,
            cause=((number, phase),),
            newest=run.newest().version,
            version=None,
            roster=len(run.run.roster),
            verdicts=tuple(map(step_verdict, verdicts)),
            decided_at=at,
        )

    def _monotonic(self, recorded_at: float) -> float:
        """When something was that the record has in Unix seconds, by the clock that does not jump."""
        return time.monotonic() - max(0.0, self._services.now() - recorded_at)

    def _count_commit(self, version: VersionRecord, verdicts: list[UpdateRecord], took_s: float) -> None:
        metrics = self._services.metrics
        metrics.round_ended("committed", took_s)
        metrics.judged((update.node, update.verdict) for update in verdicts)
        self._run.facts.note(version.metrics)

    async def _note_fallback(self, number: int, rule: str) -> None:
        run = self._run
        if rule == run.ready().spec.aggregation.name:
            return
        run.log.warning("the rule could not be applied; its fallback was", round=number, rule=rule)
        detail = {"round": number, "rule": rule}
        event = EventRecord(self._services.now(), "fallback-rule", run.run.run, detail=detail)
        await run.persist(run.record.add_event, event)

    async def _after_commit(self, number: int, verdicts: list[UpdateRecord]) -> None:
        """What can wait until the next round is on its way: the nodes' metrics of the base version, and retention."""
        version = self._run.ready().measured_in(number)
        await self._run.evaluation.note_merged(version, of_accepted(verdicts), EVALUATED)
        await self._run.prune_when_due([number], sum(update.bytes for update in verdicts))
