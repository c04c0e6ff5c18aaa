"""From recorded updates to a job for the worker, and from its result to what is recorded of a decision.

The same for a coordinator at work and for a replay of its record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from covey.aggregation.verdicts import Verdict
from covey.storage.record.contract import Json, RunRecord, StepRecord, Store, UpdateRecord
from covey.wire.identities.signing import CommitVerdict
from covey.worker.jobs.steps import EVICTED, StepAnswer, StepJob, StepResult


@dataclass(frozen=True)
class PendingUpdate:
    """A recorded update, and the version that its assignment was sent with, by the coordinator's own record."""

    update: UpdateRecord
    base_version: int
    order: int
    """Of its arrival in the run, from 1."""

    def message(self, files: Mapping[str, Path]) -> StepAnswer:
        """As the worker is told of it; `files` maps digests to paths."""
        return replace(self.without_files(), parts=_paths(self.update, files))

    def without_files(self) -> StepAnswer:
        """The same of an update that is lost."""
        update = self.update
        return StepAnswer(update.node, update.weight, {}, number=update.round, base_version=self.base_version)


@dataclass(frozen=True)
class DecisionInput:
    """What a decision starts from: the same input gives the same decision."""

    run: RunRecord
    arrived: PendingUpdate
    version: int
    """The newest one."""
    last: StepRecord
    """The step before, with the policy's state after it."""
    earlier: Mapping[int, PendingUpdate]
    """The updates that the state refers to, by assignment."""
    models: Mapping[int, Path]
    slots: Mapping[str, Path]
    """The newest version's state files."""
    evicted: tuple[str, ...] = ()
    """Nodes that were evicted since the policy held an update of them."""
    lost: tuple[int, ...] = ()
    """Of the earlier updates, those whose files are damaged or missing."""

    @property
    def staleness(self) -> int:
        """How many versions older the update's base is than the newest one."""
        return self.version - self.arrived.base_version

    def job(self, files: Mapping[str, Path], out: Path, out_state: Mapping[str, Path], *, allow_path: bool) -> StepJob:
        """The worker's job; `files` maps digests to paths."""
        held = sorted((a for a in self.earlier.values() if a.update.verdict == "held"), key=lambda a: a.order)
        return StepJob(
            run=self.run.run,
            spec_json=self.run.spec,
            layout=self.run.layout,
            answers=(self.arrived.message(files),),
            version=self.version,
            held=tuple(
                pending.without_files() if pending.update.round in self.lost else pending.message(files)
                for pending in held
            ),
            updates={
                number: _paths(self.earlier[number].update, files) for number in self.earlier if self._has(number)
            },
            models=self.models,
            state_json=self.last.state,
            state=self.slots,
            out=out,
            out_state=out_state,
            roster=self.run.roster,
            evicted=self.evicted,
            lost=self.lost,
            allow_path=allow_path,
        )

    def _has(self, number: int) -> bool:
        return number not in self.lost

    def digests(self) -> set[str]:
        """The files of updates that the job needs."""
        known = [self.arrived, *(pending for number, pending in self.earlier.items() if self._has(number))]
        return {part.artifact.digest for pending in known for part in pending.update.parts}

    def judged(self, result: StepResult) -> list[PendingUpdate]:
        """The updates that were judged, with their verdicts."""
        known = {**self.earlier, self.arrived.update.round: self.arrived}
        return [self._judged(known[verdict.number], verdict) for verdict in result.verdicts]

    def _judged(self, pending: PendingUpdate, verdict: Verdict) -> PendingUpdate:
        own = {"staleness": float(self.staleness)} if pending is self.arrived else {}
        numbers = {**pending.update.numbers, **own, **verdict.numbers}
        changes = {"verdict": verdict.verdict, "reason": verdict.reason, "share": verdict.share, "numbers": numbers}
        return replace(pending, update=UpdateRecord(**{**vars(pending.update), **changes}))

    def step(self, result: StepResult, at: float) -> StepRecord:
        """What is recorded of the decision, with the policy's state after it."""
        return StepRecord(
            run=self.run.run,
            number=self.last.number + 1,
            cause=((self.arrived.update.round, 1),),
            newest=self.version,
            version=self.version + 1 if result.artifact is not None else None,
            roster=len(self.run.roster),
            verdicts=tuple(map(verdict_json, result.verdicts)),
            decided_at=at,
            state=result.state_json,
            state_sha256=hashlib.sha256(result.state_json.encode()).hexdigest(),
            pinned_updates=result.pinned_updates,
            pinned_versions=result.pinned_versions,
        )


def evicted_holders(earlier: Mapping[int, PendingUpdate], evicted: Collection[str]) -> tuple[str, ...]:
    """The evicted nodes of which an update is held."""
    holders = {pending.update.node for pending in earlier.values() if pending.update.verdict == "held"}
    return tuple(sorted(holders.intersection(evicted)))


def recorded_evictions(step: StepRecord) -> tuple[str, ...]:
    """The nodes whose held updates were rejected by a recorded decision since they were evicted."""
    held = (verdict for verdict in step.verdicts if verdict["round"] != step.group)
    return tuple(sorted(str(row["node"]) for row in held if (row["verdict"], row["reason"]) == ("rejected", EVICTED)))


def _paths(update: UpdateRecord, files: Mapping[str, Path]) -> dict[str, Path]:
    """An update's files by part."""
    return {part.name: files[part.artifact.digest] for part in update.parts}


def verdict_json(verdict: Verdict) -> Json:
    """A verdict as the step's record has it: with what was measured in this decision alone."""
    return {
        "round": verdict.number,
        "node": verdict.node,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "share": verdict.share,
        "numbers": dict(verdict.numbers),
    }


def kept_after(
    known: Mapping[int, PendingUpdate], judged: Iterable[PendingUpdate], step: StepRecord
) -> dict[int, PendingUpdate]:
    """The updates that the policy's state refers to after a step."""
    now = {**known, **{pending.update.round: pending for pending in judged}}
    return {number: now[number] for number in step.pinned_updates}


def load_earlier(store: Store, run: str, step: StepRecord) -> dict[int, PendingUpdate]:
    """The updates that a step's state refers to. Blocking."""
    return {update.round: load_pending(store, update) for update in store.updates_of(run, step.pinned_updates)}


def load_pending(store: Store, update: UpdateRecord) -> PendingUpdate:
    """A recorded update with what the record says of its assignment. Blocking."""
    record = store.round(update.run, update.round)
    return PendingUpdate(update, record.base_version, record.arrival or 0)


def signed_verdicts(judged: Sequence[PendingUpdate]) -> list[CommitVerdict]:
    """The final verdicts of a decision, as the next commit names them; what is held has none yet."""
    return [
        CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, u.round)
        for u in (pending.update for pending in judged)
        if u.verdict != "held"
    ]


def load_unsigned(store: Store, run: str) -> list[CommitVerdict]:
    """The final verdicts since the decision that made the newest version: no commit names them yet. Blocking."""
    steps = store.steps(run)
    last = max((step.number for step in steps if step.version is not None), default=0)
    since = [verdict for step in steps if step.number > last for verdict in step.verdicts]
    numbers = [int(str(verdict["round"])) for verdict in since if verdict["verdict"] != "held"]
    updates = {update.round: update for update in store.updates_of(run, numbers)}
    return [
        CommitVerdict(u.node, u.digest, u.verdict, u.reason, u.share, u.round)
        for u in map(updates.__getitem__, numbers)
    ]
