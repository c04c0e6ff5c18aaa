"""From recorded updates to a job for the worker, and from its result to what is recorded of a decision.

The same for a coordinator at work and for a replay of its record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from covey.storage.record.contract import DecisionRecord, Json, PolicyStateRecord, RunRecord, Store, UpdateRecord
from covey.wire.signing import CommitVerdict
from covey.worker.jobs.decisions import EVICTED, AsyncArrival, AsyncVerdict, DecideJob, DecideResult


@dataclass(frozen=True)
class PendingUpdate:
    """A recorded update, and the version that its assignment was sent with, by the coordinator's own record."""

    update: UpdateRecord
    base_version: int
    order: int
    """Of its arrival in the run, from 1."""

    def message(self, files: Mapping[str, Path]) -> AsyncArrival:
        """As the worker is told of it; `files` maps digests to paths."""
        update = self.update
        return AsyncArrival(update.round, update.node, update.weight, _paths(update, files), self.base_version)


@dataclass(frozen=True)
class DecisionInput:
    """What a decision starts from: the same input gives the same decision."""

    run: RunRecord
    arrived: PendingUpdate
    version: int
    """The newest one."""
    state: PolicyStateRecord
    """After the decision before; its `state` is empty at first."""
    earlier: Mapping[int, PendingUpdate]
    """The updates that the state refers to, by assignment."""
    models: Mapping[int, Path]
    slots: Mapping[str, Path]
    """The newest version's state files."""
    evicted: tuple[str, ...] = ()
    """Nodes that were evicted since the policy held an update of them."""

    @property
    def staleness(self) -> int:
        """How many versions older the update's base is than the newest one."""
        return self.version - self.arrived.base_version

    def job(
        self, files: Mapping[str, Path], out: Path, out_state: Mapping[str, Path], *, allow_path: bool
    ) -> DecideJob:
        """The worker's job; `files` maps digests to paths."""
        held = sorted((a for a in self.earlier.values() if a.update.verdict == "held"), key=lambda a: a.order)
        return DecideJob(
            run=self.run.run,
            spec_json=self.run.spec,
            layout=self.run.layout,
            arrival=self.arrived.message(files),
            version=self.version,
            held=tuple(one.message(files) for one in held),
            updates={number: _paths(one.update, files) for number, one in self.earlier.items()},
            models=self.models,
            state_json=self.state.state,
            state=self.slots,
            out=out,
            out_state=out_state,
            roster=self.run.roster,
            evicted=self.evicted,
            allow_path=allow_path,
        )

    def digests(self) -> set[str]:
        """The files of updates that the job needs."""
        known = [self.arrived, *self.earlier.values()]
        return {part.artifact.digest for one in known for part in one.update.parts}

    def judged(self, result: DecideResult) -> list[PendingUpdate]:
        """The updates that were judged, with their verdicts."""
        known = {**self.earlier, self.arrived.update.round: self.arrived}
        return [self._judged(known[verdict.number], verdict) for verdict in result.verdicts]

    def _judged(self, one: PendingUpdate, verdict: AsyncVerdict) -> PendingUpdate:
        own = {"staleness": float(self.staleness)} if one is self.arrived else {}
        numbers = {**one.update.numbers, **own, **verdict.numbers}
        changes = {"verdict": verdict.verdict, "reason": verdict.reason, "share": verdict.share, "numbers": numbers}
        return replace(one, update=UpdateRecord(**{**vars(one.update), **changes}))

    def after(self, result: DecideResult) -> PolicyStateRecord:
        """The policy's state after the decision."""
        return PolicyStateRecord(
            self.run.run, self.state.decision + 1, result.state_json, result.pinned_updates, result.pinned_versions
        )

    def decision(self, result: DecideResult, at: float) -> DecisionRecord:
        """What is recorded of the decision."""
        return DecisionRecord(
            run=self.run.run,
            decision=self.state.decision + 1,
            round=self.arrived.update.round,
            newest=self.version,
            version=self.version + 1 if result.artifact is not None else None,
            roster=len(self.run.roster),
            verdicts=tuple(map(verdict_json, result.verdicts)),
            state_sha256=hashlib.sha256(result.state_json.encode()).hexdigest(),
            decided_at=at,
        )


def evicted_holders(earlier: Mapping[int, PendingUpdate], evicted: Collection[str]) -> tuple[str, ...]:
    """The evicted nodes of which an update is held."""
    holders = {one.update.node for one in earlier.values() if one.update.verdict == "held"}
    return tuple(sorted(holders.intersection(evicted)))


def recorded_evictions(decision: DecisionRecord) -> tuple[str, ...]:
    """The nodes whose held updates were rejected by a recorded decision since they were evicted."""
    held = (verdict for verdict in decision.verdicts if verdict["round"] != decision.round)
    return tuple(sorted(str(one["node"]) for one in held if (one["verdict"], one["reason"]) == ("rejected", EVICTED)))


def _paths(update: UpdateRecord, files: Mapping[str, Path]) -> dict[str, Path]:
    """An update's files by part."""
    return {part.name: files[part.artifact.digest] for part in update.parts}


def verdict_json(verdict: AsyncVerdict) -> Json:
    """A verdict as a decision's record has it."""
    return {
        "round": verdict.number,
        "node": verdict.node,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "share": verdict.share,
        "numbers": dict(verdict.numbers),
    }


def kept_after(
    known: Mapping[int, PendingUpdate], judged: Iterable[PendingUpdate], state: PolicyStateRecord
) -> dict[int, PendingUpdate]:
    """The updates that the policy's state refers to after a decision."""
    now = {**known, **{one.update.round: one for one in judged}}
    return {number: now[number] for number in state.pinned_updates}


def load_earlier(store: Store, run: str, state: PolicyStateRecord) -> dict[int, PendingUpdate]:
    """The updates that a recorded state refers to. Blocking."""
    return {update.round: load_pending(store, update) for update in store.updates_of(run, state.pinned_updates)}


def load_pending(store: Store, update: UpdateRecord) -> PendingUpdate:
    """A recorded update with what the record says of its assignment. Blocking."""
    record = store.round(update.run, update.round)
    return PendingUpdate(update, record.base_version, record.arrival or 0)


def signed_verdicts(judged: Sequence[PendingUpdate]) -> list[CommitVerdict]:
    """The final verdicts of a decision, as the next commit names them; what is held has none yet."""
    return [
        CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, u.round)
        for u in (one.update for one in judged)
        if u.verdict != "held"
    ]


def load_unsigned(store: Store, run: str) -> list[CommitVerdict]:
    """The final verdicts since the decision that made the newest version: no commit names them yet. Blocking."""
    decisions = store.decisions(run)
    last = max((one.decision for one in decisions if one.version is not None), default=0)
    since = [verdict for one in decisions if one.decision > last for verdict in one.verdicts]
    numbers = [int(str(verdict["round"])) for verdict in since if verdict["verdict"] != "held"]
    updates = {update.round: update for update in store.updates_of(run, numbers)}
    return [
        CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, u.round)
        for u in map(updates.__getitem__, numbers)
    ]
