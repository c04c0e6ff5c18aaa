"""Executes one run of mode `rounds`: feeds events to its round machine and does what the machine asks for, in order."""

from __future__ import annotations

import contextlib
import time
from typing import cast

from covey import faults
from covey.artifact import INLINE_BYTES, Artifact
from covey.coordinator.environment import Environment
from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.coordinator.runs.active_run import Metrics, NodeState, RunBase, merged_metrics, reported_loss
from covey.coordinator.runs.assignments import Extras, assignment
from covey.coordinator.runs.commit import adopt_files, commit_records
from covey.coordinator.runs.preparation import prepare
from covey.coordinator.runs.verdict_feedback import Settled
from covey.errors import CoveyError, NotFound
from covey.protos import coordinator_pb2 as pb
from covey.storage.record.contract import EventRecord, RoundRecord, RunRecord, UpdateRecord, VersionRecord
from covey.worker.jobs.messages import AggregateJob, AggregateResult, AggregateRow

__all__ = ["NodeState", "RunRunner", "merged_metrics"]


class RunRunner(RunBase[RoundMachine]):
    """One run of mode `rounds` under this coordinator's care."""

    def __init__(self, env: Environment, run: RunRecord) -> None:
        super().__init__(env, run)
        self._job: AggregateJob | None = None
        self._result: AggregateResult | None = None
        self._updates: list[UpdateRecord] = []
        """The updates of the round that is being aggregated."""
        self._settled = Settled()
        self._before: VersionRecord | None = None
        """The version before the newest."""
        self._holders: set[str] = set()
        """Nodes that surely have the version before the newest."""
        self._opened_at = 0.0
        """When the round was opened, in Unix seconds."""
        self._collecting_since = 0.0
        """When its present attempt was opened (monotonic seconds)."""

    # -- the outside ----------------------------------------------------------------------------------------------

    def open_round(self, node: str) -> int:
        """As `RunBase.open_round`: one round is open for all."""
        return self.machine.round if self.machine else 0

    def base_of(self, node: str, number: int) -> VersionRecord:
        """As `RunBase.base_of`: all start from the newest version."""
        return self.newest()

    def served(self, node: str, digest: str) -> Artifact | None:
        """As `RunBase.served`: the newest version, or the change that led to it."""
        found = [] if self.base is None else [self.base.artifact, self._change(self.base)]
        return next((one for one in found if one is not None and one.digest == digest), None)

    async def _begin(self) -> None:
        self.prepared = await prepare(self.env, self.run)
        self.run, self.base = self.prepared.run, self.prepared.newest
        restored = self.prepared.restored
        if restored.round:  # what came in before the restart counts
            came = await self.env.store.persist(self.env.store.store.updates, self.run.run, restored.round)
            self.bytes_received = sum(update.bytes for update in came)
            record = await self.env.store.persist(self.env.store.store.round, self.run.run, restored.round)
            self._opened_at, self._collecting_since = record.started_at, time.monotonic()
        await self._recall(self.base)
        expected = await self._expected()
        self.machine = RoundMachine(self.prepared.policy, self.run.roster, expected=expected, restored=restored)

    async def _recall(self, base: VersionRecord) -> None:
        """What assignments carry beside the model, from the record."""
        if self.ready().description.node_state:
            store, load = self.env.store.store, Settled.load
            self._settled = await self.env.store.persist(load, store, self.run.run, self.run.roster, base.version)
        if self._change(base) is not None:
            store = self.env.store.store
            self._before = await self.env.store.persist(store.version, self.run.run, base.version - 1)

    # -- actions --------------------------------------------------------------------------------------------------

    async def _do(self, action: ev.Action) -> None:
        match action:
            case ev.OpenRound():
                await self._open_round(action)
            case ev.Assign():
                await self._assign(action)
            case ev.RecordOutcome():
                await self._record_outcome(action)
            case ev.Aggregate():
                await self._begin_aggregation(action)
            case ev.Commit():
                await self._commit(action)
            case _:
                await self._do_shared(action)

    async def _open_round(self, action: ev.OpenRound) -> None:
        store = self.env.store
        await self._extend_roster(action.roster)
        now = self.env.now()
        record = RoundRecord(
            self.run.run, action.round, action.attempt, "collecting", action.invited, self.newest().version, now, now
        )
        await store.persist(store.store.open_round, record)
        if action.attempt == 1:
            self.bytes_received = self.bytes_sent = 0
            self.progress, self._opened_at = {}, now
        else:
            self.env.metrics.rounds.labels("retried").inc()
        self._collecting_since = time.monotonic()
        for node in action.invited:
            self.progress.setdefault(node, NodeState("invited" if node in self.env.sessions else "away"))
        self._log.info("round opened", round=action.round, attempt=action.attempt, invited=len(action.invited))

    async def _assign(self, action: ev.Assign) -> None:
        faults.reach("invite")
        base, extras = self.newest(), self._extras(action.node)
        has_change = extras.change is not None and action.node in self._holders
        data = b"" if has_change else self._inline(base, action.node)
        message = assignment(
            self.run, self.ready().spec, base, data, self._index(action.node), action.round, action.attempt, extras
        )
        self.entered(action.node, NodeState("invited"))
        self.env.sessions.send(action.node, pb.CoordinatorMessage(assignment=message))

    def _extras(self, node: str) -> Extras:
        base, files = self.newest(), self.env.files
        change, broadcast = self._change(base), _state(base, "broadcast")
        small = change is not None and change.size_bytes <= INLINE_BYTES
        data = files.path(change.digest).read_bytes() if change is not None and small else b""
        self.sent(node, len(data))
        return Extras(
            change=change,
            change_data=data,
            change_base=self._before.artifact.digest if self._before else "",
            broadcast=files.path(broadcast.digest).read_bytes() if broadcast else b"",
            settled=self._settled.of(node),
            node_state=self.ready().description.node_state,
        )

    @staticmethod
    def _change(version: VersionRecord) -> Artifact | None:
        return _state(version, "change")

    async def _record_outcome(self, action: ev.RecordOutcome) -> None:
        outcome = UpdateRecord(
            self.run.run, action.round, action.node, action.verdict, action.reason, received_at=self.env.now()
        )
        with contextlib.suppress(NotFound):
            # The record decides: the update may have become durable just before, and is then judged with the others.
            if await self.env.store.persist(self.env.store.store.record_outcome, outcome):
                self._note_outcome(action)

    def _note_outcome(self, action: ev.RecordOutcome) -> None:
        self._log.info("no update", node=action.node, round=action.round, verdict=action.verdict, reason=action.reason)
        self.entered(action.node, NodeState(action.verdict))
        self.env.metrics.judged([(action.node, action.verdict)])

    async def _begin_aggregation(self, action: ev.Aggregate) -> None:
        self.env.metrics.round_phases.labels("collecting").observe(time.monotonic() - self._collecting_since)
        # What is durable decides: an update may have been recorded since the machine looked.
        closed = await self.env.store.persist(self._close_round, action.round)
        self._updates = [update for update in closed if update.verdict == "received"]
        self._spawn(self._aggregate(action))

    def _close_round(self, number: int) -> list[UpdateRecord]:
        self.env.store.store.begin_aggregation(self.run.run, number)
        return self.env.store.store.updates(self.run.run, number)

    async def _aggregate(self, action: ev.Aggregate) -> None:
        try:
            with self.env.metrics.round_phases.labels("aggregating").time():
                self._result = await self._run_rule(action)
        except CoveyError as error:
            self._log.exception("aggregation failed", round=action.round)
            self._discard_scratch()
            self.post(ev.AggregationFailed(action.round, str(error)))
            return
        if not self._result.enough:
            self._discard_scratch()
        rejected = {row.node: row.reason for row in self._result.verdicts if not row.accepted}
        self.post(ev.Aggregated(action.round, self._result.enough, rejected, self.env.now()))

    def _discard_scratch(self) -> None:
        for path in (self._job.out, *self._job.out_state.values()) if self._job else ():
            self.env.files.discard(path)

    async def _run_rule(self, action: ev.Aggregate) -> AggregateResult:
        files, base, prepared = self.env.files, self.newest(), self.ready()
        updates = {update.node: update for update in self._updates}
        rows = tuple(
            AggregateRow(
                node,
                updates[node].weight,
                {p.name: files.path(p.artifact.digest) for p in updates[node].parts},
                reported_loss(cast(Metrics, updates[node].metrics)),
            )
            for node in self.run.roster
            if node in updates
        )
        self._job = job = AggregateJob(
            run=self.run.run,
            spec_json=self.run.spec,
            layout=self.run.layout,
            round=action.round,
            base=files.path(base.artifact.digest),
            rows=rows,
            state={part.name: files.path(part.artifact.digest) for part in base.state},
            out=files.scratch(prepared.layout.file_bytes),
            out_state={slot: files.scratch(size) for slot, size in prepared.slot_bytes().items()},
            roster=self.run.roster,
            allow_path=self.env.config.allow_paths,
        )
        faults.reach("aggregate")
        return await self.env.worker.use(lambda worker: worker.aggregate(job))

    async def _commit(self, action: ev.Commit) -> None:
        store, result, job = self.env.store, self._result, self._job
        if result is None or job is None:
            raise RuntimeError("commit without a result")
        version, verdicts = commit_records(self.env, self.run, self.newest(), job, result, self._updates)
        with self.env.metrics.round_phases.labels("committing").time():
            await store.persist(self._make_permanent, job, result, version, verdicts)
        faults.reach("after-commit")
        self._before, self.base, self._job, self._result = self.base, version, None, None
        self._settled.note(verdicts)
        self._count_commit(version, verdicts)
        self._holders = {update.node for update in verdicts}
        await self._note_fallback(action.round, result.rule)
        accepted = sum(update.verdict == "accepted" for update in verdicts)
        self._log.info("round committed", round=action.round, accepted=accepted, model=version.model_sha256[:12])
        await self._handle(ev.RoundCommitted(action.round, self.env.now()))
        self._spawn(self._after_commit(action.round, verdicts))

    def _count_commit(self, version: VersionRecord, verdicts: list[UpdateRecord]) -> None:
        metrics = self.env.metrics
        metrics.rounds.labels("committed").inc()
        metrics.round_seconds.observe(max(0.0, version.created_at - self._opened_at))
        metrics.judged((update.node, update.verdict) for update in verdicts)
        self.facts.note(version.metrics)

    async def _note_fallback(self, number: int, rule: str) -> None:
        if rule == self.ready().spec.aggregation.name:
            return
        self._log.warning("the rule could not be applied; its fallback was", round=number, rule=rule)
        detail = {"round": number, "rule": rule}
        event = EventRecord(self.env.now(), "fallback-rule", self.run.run, detail=detail)
        await self.env.store.persist(self.env.store.store.add_event, event)

    def _make_permanent(
        self, job: AggregateJob, result: AggregateResult, version: VersionRecord, verdicts: list[UpdateRecord]
    ) -> None:
        """In the store's thread: files under their names first, then the record of them."""
        adopt_files(self.env.files, job, result)
        faults.reach("before-commit")
        self.env.store.store.commit_round(
            self.run.run,
            job.round,
            version,
            verdicts,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            at=version.created_at,
        )

    async def _after_commit(self, number: int, verdicts: list[UpdateRecord]) -> None:
        """What can wait until the next round is on its way: the nodes' metrics of the base version, and retention."""
        store, spec = self.env.store, self.ready().spec
        merged = merged_metrics([cast(Metrics, u.metrics) for u in verdicts if u.verdict == "accepted"], "evaluation/")
        if merged:
            await store.persist(store.store.record_metrics, self.run.run, number - 1, merged, evaluated=False)
            self.facts.note(merged)
        await store.persist(self._prune, spec, [number])


def _state(version: VersionRecord, name: str) -> Artifact | None:
    """A file that a version has beside the model."""
    return next((part.artifact for part in version.state if part.name == name), None)
