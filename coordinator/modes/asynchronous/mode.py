"""Mode `async`: does what the asynchronous machine of one run asks for.

An assignment is recorded before it is sent, and a decision, with the version that it may make, in one transaction.
Decisions are made beside the events, one at a time, in the order in which the store recorded the updates: after a
crash the same update is decided on again from the same state, with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey import faults
from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.modes.asynchronous import events as ev
from covey.coordinator.modes.asynchronous.data_parts import DataParts
from covey.coordinator.modes.asynchronous.decisions import (
    DecisionInput,
    PendingUpdate,
    evicted_holders,
    kept_after,
    load_earlier,
    load_pending,
    load_unsigned,
    signed_verdicts,
)
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.coordinator.modes.asynchronous.preparation import async_run_policy_of, restore
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.assignments import AssignmentInputs, wanted_parts
from covey.coordinator.runs.facts import Counted, NodeProgress
from covey.coordinator.runs.mode import Mode
from covey.coordinator.runs.steps.commit import MadeStep, discard_scratch, signed_version
from covey.coordinator.runs.steps.damage import bring, intact, is_whole, note_lost
from covey.coordinator.runs.steps.preparation import Prepared
from covey.coordinator.runs.steps.stopping import stop_rules
from covey.coordinator.runs.verdict_feedback import VerdictFeedback
from covey.errors import Conflict, CorruptChunk, CoveyError, Late
from covey.machines.membership import Membership
from covey.machines.protocol import TransferProgressed, UpdateStored, Verdict
from covey.machines.shortage import listed
from covey.storage.files.room import scratch_files
from covey.storage.record.contract import UpdateRecord, VersionRecord
from covey.wire.identities.signing import CommitVerdict
from covey.worker.jobs.operations import STEP
from covey.worker.jobs.steps import EVICTED, LOST


@dataclass(frozen=True)
class DecisionOutcome:
    """A decision that is ready to be recorded."""

    given: DecisionInput
    judged: list[PendingUpdate]
    step: MadeStep


OUT = ""
"""The model, among the files of a step: no other has this name."""


class AsyncMode(Mode):
    """One run's part that is mode `async`.

    Args:
        run: The run.
    """

    counts: Counted = "updates"

    def __init__(self, run: ActiveRun) -> None:
        self._run, self._services = run, run.services
        self.machine: AsyncMachine | None = None
        self._open: dict[str, tuple[int, VersionRecord]] = {}
        """Node to its open assignment and the version that it starts from."""
        self._earlier: dict[int, PendingUpdate] = {}
        """The updates that the policy's state refers to."""
        self._unsigned: list[CommitVerdict] = []
        """Final verdicts that no commit names yet."""
        self._feedback = VerdictFeedback()
        self._parts = DataParts()
        self._opened_at: dict[int, float] = {}
        """When the assignments were opened that were so since this coordinator's start (monotonic seconds)."""

    # -- the run's questions --------------------------------------------------------------------------------------

    @override
    def open_round(self, node: str) -> int:
        """The node's own assignment."""
        return self._open[node][0] if node in self._open else 0

    @override
    def base_of(self, node: str, number: int) -> VersionRecord:
        """The version that the assignment was sent with."""
        work = self._open.get(node)
        if work is None or work[0] != number:
            raise Late("this assignment is closed")
        return work[1]

    @override
    def served(self, node: str, digest: str) -> Artifact | None:
        """The base of the node's assignment, and the newest version, for evaluation."""
        versions = [self._run.base, self._open[node][1] if node in self._open else None]
        return next((v.artifact for v in versions if v is not None and v.artifact.digest == digest), None)

    @override
    def moved(self, node: str, progress: NodeProgress) -> None:
        """Here, training is a sign of progress too."""
        self._run.post(TransferProgressed(node, self._services.clock()))

    # -- taking the run up ----------------------------------------------------------------------------------------

    @override
    def waits_for(self) -> str:
        absent = self.machine.members.absent() if self.machine is not None and self._run.is_waiting else []
        return f"away: {listed(absent)}" if absent else ""

    @override
    async def begin(self, prepared: Prepared, expected: dict[str, float]) -> AsyncMachine:
        run = self._run
        rules = stop_rules(self._services, prepared)
        policy = async_run_policy_of(prepared, rules, keeps_deadlines=self._services.keeps_deadlines)
        restored = await run.persist(restore, run.record, run.run.run, policy)
        await run.persist(self._recall, restored)
        run.facts.decided = restored.decided
        self.machine = AsyncMachine(policy, run.run.roster, expected=expected, restored=restored)
        return self.machine

    def _recall(self, restored: ev.AsyncRestored) -> None:
        """In the record's thread: what it has of the run's progress."""
        store, run = self._run.record, self._run.run.run
        self._open = {node: (w.number, store.version(run, w.base_version)) for node, w in restored.open.items()}
        self._earlier = load_earlier(store, run, self._run.step)
        self._unsigned = load_unsigned(store, run)
        self._parts = DataParts.load(store, self._run.run)
        if self._run.ready().description.node_state:
            self._feedback = VerdictFeedback.load(store, run, self._run.run.roster, restored.last_number)

    # -- actions --------------------------------------------------------------------------------------------------

    @override
    async def do(self, action: Any) -> None:
        match action:
            case ev.OpenAssignment():
                await self._open_assignment(action)
            case ev.SendAssignment():
                await self._send(action)
            case ev.CloseAssignment():
                await self._close(action)
            case ev.DecideNext():
                self._run.driver.spawn(self._decide())

    async def _open_assignment(self, action: ev.OpenAssignment) -> None:
        run, base = self._run, self._run.newest()
        await run.extend_roster(action.roster)
        part = self._parts.take(action.node, run.run.roster, run.run.parts, self._members())
        await run.open(action.number, 1, (action.node,), base, action.roster, part)
        self._open[action.node] = action.number, base
        self._opened_at[action.number] = time.monotonic()
        run.log.debug("assignment opened", round=action.number, node=action.node, version=base.version)

    def _members(self) -> Membership:
        if self.machine is None:
            raise RuntimeError("the run is not taken up")
        return self.machine.members

    async def _send(self, action: ev.SendAssignment) -> None:
        number, base = self._open[action.node]
        if base.artifact.size_bytes <= INLINE_BYTES and base != self._run.newest():  # it goes along
            await bring(self._services, [base.artifact.digest])
        description = self._run.ready().description
        inputs = AssignmentInputs(
            feedback=self._feedback.of(action.node), node_state=description.node_state, wanted=wanted_parts(description)
        )
        # Versions outnumber rounds by far: only the last one is evaluated on the nodes.
        part = self._parts.of(action.node)
        self._run.assign(action.node, number, 1, base, inputs, part=-1 if part is None else part)

    async def _close(self, action: ev.CloseAssignment) -> None:
        run = self._run
        self._open.pop(action.node, None)
        run.progress.entered(action.node, NodeProgress(action.verdict))
        if not await self._record_outcome(action.number, action.node, action.verdict, action.reason):
            await run.driver.take(UpdateStored(action.node, action.number, self._services.clock()))
            return
        self._opened_at.pop(action.number, None)
        self._services.metrics.judged([(action.node, action.verdict)])
        run.log.info("no update", node=action.node, round=action.number, verdict=action.verdict, reason=action.reason)

    async def _record_outcome(
        self, number: int, node: str, verdict: Verdict, reason: str, *, discard: bool = False
    ) -> bool:
        run, now = self._run, self._services.now()
        outcome = UpdateRecord(run.run.run, number, node, verdict, reason, received_at=now)
        return await run.persist(run.record.close_round, outcome, discard=discard)

    # -- decisions ------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        run = self._run
        update = await run.persist(run.record.next_arrival, run.run.run)
        if update is None:
            run.post(ev.NothingToDecide(self._services.clock()))
        elif update.node in self._services.members.evicted:
            await self._reject(update, EVICTED)
        else:
            pending = await run.persist(load_pending, run.record, update)
            base = await self._version(pending.base_version)
            await bring(self._services, [base.artifact.digest, *(part.artifact.digest for part in update.parts)])
            if lost := await run.persist(self._why_lost, pending):
                await self._reject(update, lost)
            else:
                await self._decide_on(pending)

    async def _reject(self, update: UpdateRecord, reason: str) -> None:
        """The policy does not see it; its node gets its next assignment."""
        await self._record_outcome(update.round, update.node, "rejected", reason, discard=True)
        if reason != EVICTED:
            await self._run.persist(note_lost, self._run.record, update, reason, self._services.now())
        self._opened_at.pop(update.round, None)
        self._services.metrics.judged([(update.node, "rejected")])
        self._settle(update, counted=False)

    def _why_lost(self, pending: PendingUpdate) -> str:
        """Why an update cannot be used though it was acknowledged; empty: it can. Blocking."""
        files, run = self._services.files, self._run
        if not is_whole(pending.update, files):
            return LOST
        started_from = pending.base_version
        if started_from in (run.newest().version, *run.step.pinned_versions):  # without these the run cannot go on
            return ""
        base = run.record.version(run.run.run, started_from)
        if files.check(base.artifact.digest):
            return ""
        return f"lost: version {started_from}, which it started from, was damaged or missing on the coordinator"

    async def _decide_on(self, pending: PendingUpdate) -> None:
        run, given = self._run, await self._decision_input(pending)
        try:
            outcome = await self._services.store.obstacle.passed(lambda: self._ask_policy(given))
        except CoveyError as error:
            if await run.persist(self._has_lost, given):  # a file was damaged while it waited for the worker
                await self._decide()
                return
            run.log.exception("deciding failed", round=pending.update.round)
            run.post(ev.DecisionFailed(pending.update.round, str(error)))
            return
        try:
            await run.commit(outcome.step, bytes_received=pending.update.bytes)
        except Conflict:
            if self.machine is None or not self.machine.done:
                raise
            return  # the run was stopped meanwhile; what was made is dropped with the next start
        for number in given.lost:
            await run.persist(note_lost, run.record, given.earlier[number].update, LOST, self._services.now())
        self._note(outcome)
        self._settle(pending.update, counted=True)
        await run.persist(self._retain)

    def _lost_now(self, earlier: Mapping[int, PendingUpdate]) -> tuple[int, ...]:
        """Which of the updates that the policy's state refers to have no whole files any more. Blocking."""
        return tuple(
            number for number, pending in earlier.items() if not is_whole(pending.update, self._services.files)
        )

    def _has_lost(self, given: DecisionInput) -> bool:
        """Whether a file that a decision took is not there any more. Blocking."""
        is_known = given.lost == self._lost_now(given.earlier)
        return bool(self._why_lost(given.arrived)) or not is_known

    async def _decision_input(self, pending: PendingUpdate) -> DecisionInput:
        run, newest = self._run, self._run.newest()
        wanted = {newest.version, pending.base_version, *run.step.pinned_versions}
        versions = [await self._version(number) for number in wanted]
        digests = [version.artifact.digest for version in versions] + [part.artifact.digest for part in newest.state]
        self._services.files.hold(run.run.run, digests)  # until what is decided is committed
        await bring(self._services, digests)
        paths = await run.persist(self._intact, digests)
        return DecisionInput(
            run=run.run,
            arrived=pending,
            version=newest.version,
            last=run.step,
            earlier=self._earlier,
            models=dict(zip([version.version for version in versions], paths, strict=False)),
            slots=dict(zip([part.name for part in newest.state], paths[len(versions) :], strict=True)),
            evicted=evicted_holders(self._earlier, self._services.members.evicted),
            lost=await run.persist(self._lost_now, self._earlier),
        )

    async def _version(self, number: int) -> VersionRecord:
        run, newest = self._run, self._run.newest()
        return newest if number == newest.version else await run.persist(run.record.version, run.run.run, number)

    def _intact(self, digests: Sequence[str]) -> list[Path]:
        return [intact(self._services.files, digest) for digest in digests]

    async def _ask_policy(self, given: DecisionInput) -> DecisionOutcome:
        files, prepared, services = self._services.files, self._run.ready(), self._services
        updates = {digest: files.path(digest) for digest in given.digests()}
        room = scratch_files(files, {OUT: prepared.layout.file_bytes, **prepared.slot_bytes()})
        job = given.job(updates, room.pop(OUT), room, allow_path=services.allow_paths)
        faults.reach("aggregate")
        try:
            with services.metrics.phase("aggregating"):
                result = await services.worker.do(STEP, job)
            if await self._run.persist(self._has_lost, given):
                raise CorruptChunk("a file was damaged or went missing while it was used")
        except CoveyError:
            discard_scratch(files, job)
            raise
        judged = given.judged(result)
        version = None
        if result.artifact is not None:
            verdicts = [*self._unsigned, *signed_verdicts(judged)]
            version = signed_version(services, self._run.newest(), result, verdicts, round=given.arrived.update.round)
        record = given.step(result, services.now())
        step = MadeStep(job, result, record, [pending.update for pending in judged], version)
        return DecisionOutcome(given, judged, step)

    def _note(self, outcome: DecisionOutcome) -> None:
        """What was recorded is what is."""
        step = outcome.step
        self._earlier = kept_after(self._earlier, outcome.judged, step.record)
        self._unsigned = [] if step.version else [*self._unsigned, *signed_verdicts(outcome.judged)]
        self._run.progress.bytes_sent = 0
        updates = list(step.judged)
        self._feedback.note(updates)
        self._count_decision(outcome, updates)
        for update in updates:
            self._run.log.info(
                "decided", round=update.round, node=update.node, verdict=update.verdict, reason=update.reason
            )

    def _count_decision(self, outcome: DecisionOutcome, updates: list[UpdateRecord]) -> None:
        metrics, facts = self._services.metrics, self._run.facts
        opened_at = self._opened_at.pop(outcome.given.arrived.update.round, None)
        metrics.round_ended("committed", None if opened_at is None else time.monotonic() - opened_at)
        metrics.judged((update.node, update.verdict) for update in updates)
        facts.decided += 1
        if outcome.step.version is not None:
            facts.note(outcome.step.version.metrics)

    def _settle(self, update: UpdateRecord, *, counted: bool) -> None:
        if self.open_round(update.node) == update.round:
            del self._open[update.node]
        version = self._run.newest().version
        sent_bytes = update.bytes if counted else 0
        self._run.post(ev.Decided(update.node, update.round, version, counted, self._services.clock(), sent_bytes))

    def _retain(self) -> None:
        """In the record's thread: let files go that are not needed any more."""
        unevaluated = self.machine.unevaluated if self.machine else ()
        self._run.prune([self._run.newest().version, *unevaluated])
