"""Executes one run of mode `async`: feeds events to its machine and does what the machine asks for, in order.

An assignment is recorded before it is sent, and a decision, with the version that it may make, in one transaction.
Decisions are made beside the events, one at a time, in the order in which the store recorded the updates: after a
crash the same update is decided on again from the same state, with the same result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from covey import faults
from covey.artifact import Artifact
from covey.coordinator.environment import Environment
from covey.coordinator.modes.asynchronous import events as aev
from covey.coordinator.modes.asynchronous.decisions import (
    Arrived,
    Situation,
    evicted_holders,
    kept_after,
    load_arrived,
    load_earlier,
    load_unsigned,
    signed_verdicts,
    version_record,
)
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.coordinator.modes.asynchronous.preparation import async_policy_of, restore
from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.runs.active_run import NodeState, RunBase
from covey.coordinator.runs.assignments import Extras, assignment, wanted_parts
from covey.coordinator.runs.preparation import prepare
from covey.coordinator.runs.verdict_feedback import Settled
from covey.errors import Conflict, CoveyError, Late
from covey.protos import coordinator_pb2 as pb
from covey.storage.record.contract import PolicyStateRecord, RoundRecord, RunRecord, UpdateRecord, VersionRecord
from covey.wire.signing import CommitVerdict
from covey.worker.jobs.decisions import EVICTED, DecideJob, DecideResult
from covey.worker.jobs.operations import DECIDE


@dataclass(frozen=True)
class Outcome:
    """A decision that is ready to be recorded."""

    situation: Situation
    job: DecideJob
    result: DecideResult
    judged: list[Arrived]
    version: VersionRecord | None


class AsyncRunner(RunBase[AsyncMachine]):
    """One run of mode `async` under this coordinator's care."""

    def __init__(self, env: Environment, run: RunRecord) -> None:
        super().__init__(env, run)
        self._open: dict[str, tuple[int, VersionRecord]] = {}
        """Node to its open assignment and the version that it starts from."""
        self._state = PolicyStateRecord(run.run, 0, "")
        self._earlier: dict[int, Arrived] = {}
        """The updates that the policy's state refers to."""
        self._unsigned: list[CommitVerdict] = []
        """Final verdicts that no commit names yet."""
        self._settled = Settled()
        self._opened_at: dict[int, float] = {}
        """When the assignments were opened that were so since this coordinator's start (monotonic seconds)."""

    # -- the outside ----------------------------------------------------------------------------------------------

    def open_round(self, node: str) -> int:
        """As `RunBase.open_round`: the node's own assignment."""
        return self._open[node][0] if node in self._open else 0

    def base_of(self, node: str, number: int) -> VersionRecord:
        """As `RunBase.base_of`: the version that the assignment was sent with."""
        found = self._open.get(node)
        if found is None or found[0] != number:
            raise Late("this assignment is closed")
        return found[1]

    def served(self, node: str, digest: str) -> Artifact | None:
        """As `RunBase.served`: the base of the node's assignment, and the newest version, for evaluation."""
        versions = [self.base, self._open[node][1] if node in self._open else None]
        return next((v.artifact for v in versions if v is not None and v.artifact.digest == digest), None)

    def moved(self, node: str, state: NodeState) -> None:
        """As `RunBase.moved`: here, training is a sign of progress too."""
        super().moved(node, state)
        self.post(ev.TransferProgressed(node, self.env.now()))

    async def _begin(self) -> None:
        self.prepared = await prepare(self.env, self.run)
        self.run, self.base = self.prepared.run, self.prepared.newest
        policy = async_policy_of(self.prepared)
        restored = await self.env.store.persist(restore, self.env.store.store, self.run.run, policy)
        await self.env.store.persist(self._recall, restored)
        self.facts.decided = restored.decided
        expected = await self._expected()
        self.machine = AsyncMachine(policy, self.run.roster, expected=expected, restored=restored)

    def _recall(self, restored: aev.AsyncRestored) -> None:
        """In the store's thread: what the record has of the run's progress."""
        store, run = self.env.store.store, self.run.run
        self._open = {node: (w.number, store.version(run, w.base_version)) for node, w in restored.open.items()}
        self._state = store.policy_state(run) or self._state
        self._earlier = load_earlier(store, run, self._state)
        self._unsigned = load_unsigned(store, run)
        if self.ready().description.node_state:
            self._settled = Settled.load(store, run, self.run.roster, restored.last_number)

    # -- actions --------------------------------------------------------------------------------------------------

    async def _do(self, action: aev.AsyncAction) -> None:
        match action:
            case aev.OpenAssignment():
                await self._open_assignment(action)
            case aev.SendAssignment():
                self._send(action)
            case aev.CloseAssignment():
                await self._close(action)
            case aev.DecideNext():
                self._spawn(self._decide())
            case _:
                await self._do_shared(action)

    async def _open_assignment(self, action: aev.OpenAssignment) -> None:
        await self._extend_roster(action.roster)
        base, now = self.newest(), self.env.now()
        record = RoundRecord(self.run.run, action.number, 1, "collecting", (action.node,), base.version, now, now)
        await self.env.store.persist(self.env.store.store.open_round, record)
        self._open[action.node] = action.number, base
        self._opened_at[action.number] = time.monotonic()
        self._log.debug("assignment opened", round=action.number, node=action.node, version=base.version)

    def _send(self, action: aev.SendAssignment) -> None:
        faults.reach("invite")
        number, base = self._open[action.node]
        said = self.ready().description
        settled = self._settled.of(action.node)
        extras = Extras(settled=settled, node_state=said.node_state, wanted=wanted_parts(said))
        message = assignment(
            self.run,
            self.ready().spec,
            base,
            self._inline(base, action.node),
            self._index(action.node),
            number,
            1,
            extras,
        )
        message.evaluate = False  # versions outnumber rounds by far; the last one is evaluated on the nodes
        self.entered(action.node, NodeState("invited"))
        self.env.sessions.send(action.node, pb.CoordinatorMessage(assignment=message))

    async def _close(self, action: aev.CloseAssignment) -> None:
        self._open.pop(action.node, None)
        self.entered(action.node, NodeState(action.verdict))
        if not await self._close_round(action.number, action.node, action.verdict, action.reason):
            await self._handle(ev.UpdateStored(action.node, action.number, self.env.now()))
            return
        self._opened_at.pop(action.number, None)
        self.env.metrics.judged([(action.node, action.verdict)])
        self._log.info("no update", node=action.node, round=action.number, verdict=action.verdict, reason=action.reason)

    async def _close_round(self, number: int, node: str, verdict: str, reason: str, *, discard: bool = False) -> bool:
        values = {"verdict": verdict, "reason": reason, "received_at": self.env.now()}
        outcome = UpdateRecord(**{"run": self.run.run, "round": number, "node": node, **values})  # type: ignore[arg-type]
        return await self.env.store.persist(self.env.store.store.close_round, outcome, discard=discard)

    # -- decisions ------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        store, run = self.env.store, self.run.run
        update = await store.persist(store.store.next_arrival, run)
        if update is None:
            self.post(aev.NothingToDecide(self.env.now()))
        elif update.node in self.env.evicted:
            await self._close_round(update.round, update.node, "rejected", EVICTED, discard=True)
            self._opened_at.pop(update.round, None)
            self.env.metrics.judged([(update.node, "rejected")])
            self._settle(update, counted=False)
        else:
            await self._decide_on(await store.persist(load_arrived, store.store, update))

    async def _decide_on(self, arrived: Arrived) -> None:
        situation = await self._situation(arrived)
        try:
            outcome = await self._ask_policy(situation)
        except CoveyError as error:
            self._log.exception("deciding failed", round=arrived.update.round)
            self.post(aev.DecisionFailed(arrived.update.round, str(error)))
            return
        try:
            with self.env.metrics.round_phases.labels("committing").time():
                await self.env.store.persist(self._make_permanent, outcome)
        except Conflict:
            if self.machine is None or not self.machine.done:
                raise
            return  # the run was stopped meanwhile; what was made is dropped with the next start
        faults.reach("after-commit")
        self._note(outcome)
        self._settle(arrived.update, counted=True)
        await self.env.store.persist(self._retain)

    async def _situation(self, arrived: Arrived) -> Situation:
        store, run, newest = self.env.store, self.run.run, self.newest()
        wanted = {newest.version, arrived.base_version, *self._state.pinned_versions}
        versions = [newest if n == newest.version else await store.persist(store.store.version, run, n) for n in wanted]
        path = self.env.files.path
        return Situation(
            run=self.run,
            arrived=arrived,
            version=newest.version,
            state=self._state,
            earlier=self._earlier,
            models={v.version: path(v.artifact.digest) for v in versions},
            slots={part.name: path(part.artifact.digest) for part in newest.state},
            evicted=evicted_holders(self._earlier, self.env.evicted),
        )

    async def _ask_policy(self, situation: Situation) -> Outcome:
        files, prepared = self.env.files, self.ready()
        job = situation.job(
            {digest: files.path(digest) for digest in situation.digests()},
            files.scratch(prepared.layout.file_bytes),
            {slot: files.scratch(size) for slot, size in prepared.slot_bytes().items()},
        )
        faults.reach("aggregate")
        try:
            with self.env.metrics.round_phases.labels("aggregating").time():
                result = await self.env.worker.do(DECIDE, job)
        except CoveyError:
            self._discard(job)
            raise
        judged = situation.judged(result)
        verdicts = [*self._unsigned, *signed_verdicts(judged)]
        return Outcome(
            situation, job, result, judged, version_record(self.env, situation, self.newest(), result, verdicts)
        )

    def _make_permanent(self, outcome: Outcome) -> None:
        """In the store's thread: files under their names first, then the record of them."""
        situation, job, result = outcome.situation, outcome.job, outcome.result
        if result.artifact is not None:
            self.env.files.adopt(job.out, result.artifact)
            for part in result.state:
                self.env.files.adopt(part.path, part.artifact)
        faults.reach("before-commit")
        self.env.store.store.decide(
            situation.decision(result, self.env.now()),
            situation.after(result),
            [one.update for one in outcome.judged],
            outcome.version,
            bytes_received=situation.arrived.update.bytes,
            bytes_sent=self.bytes_sent,
        )
        self._discard(job, [part.path for part in result.state])

    def _discard(self, job: DecideJob, adopted: list[Path] | None = None) -> None:
        for path in {job.out, *job.out_state.values()} - set(adopted or ()):
            self.env.files.discard(path)

    def _note(self, outcome: Outcome) -> None:
        """What was recorded is what is."""
        situation, result, version = outcome.situation, outcome.result, outcome.version
        self._state = situation.after(result)
        self._earlier = kept_after(self._earlier, outcome.judged, self._state)
        self._unsigned = [] if version else [*self._unsigned, *signed_verdicts(outcome.judged)]
        self.base = version or self.base
        self.bytes_sent = 0
        self._settled.note([one.update for one in outcome.judged])
        self._count_decision(outcome)
        for one in outcome.judged:
            u = one.update
            self._log.info("decided", round=u.round, node=u.node, verdict=u.verdict, reason=u.reason)

    def _count_decision(self, outcome: Outcome) -> None:
        metrics, number = self.env.metrics, outcome.situation.arrived.update.round
        metrics.rounds.labels("committed").inc()
        if number in self._opened_at:
            metrics.round_seconds.observe(time.monotonic() - self._opened_at.pop(number))
        metrics.judged((one.update.node, one.update.verdict) for one in outcome.judged)
        self.facts.decided += 1
        if outcome.version is not None:
            self.facts.note(outcome.version.metrics)

    def _settle(self, update: UpdateRecord, *, counted: bool) -> None:
        if self.open_round(update.node) == update.round:
            del self._open[update.node]
        self.post(aev.Decided(update.node, update.round, self.newest().version, counted, self.env.now()))

    def _retain(self) -> None:
        """In the store's thread: let files go that are not needed any more."""
        unevaluated = self.machine.unevaluated if self.machine else ()
        self._prune(self.ready().spec, [self.newest().version, *unevaluated])
