"""Replaying an asynchronous run: every recorded decision is made again from the stored updates, and compared.

Nothing of what the coordinator made is taken for granted: from version 0 on, each version and each state of the policy
comes out of the replay itself. What came from outside is as recorded: the updates, and when a node was evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from covey.coordinator.modes.asynchronous.decisions import (
    DecisionInput,
    PendingUpdate,
    kept_after,
    load_pending,
    recorded_evictions,
)
from covey.coordinator.modes.contract import ReplayInputs, ReplayReport
from covey.coordinator.modes.replaying import described, different, files_of, first_version, require_kept, text_of
from covey.storage.record.contract import StepRecord, VersionRecord
from covey.worker.jobs.operations import STEP
from covey.worker.jobs.steps import StepResult


@dataclass
class _Model:
    """The newest version of the replay: its files, in the replay's own folder."""

    version: int
    sha256: str
    slots: dict[str, Path] = field(default_factory=dict)


class Replay:
    """One replay."""

    def __init__(self, given: ReplayInputs) -> None:
        self._given, self._store, self._run = given, given.store, given.run
        self._steps = given.store.steps(given.run.run)
        self._versions = {version.version: version for version in given.store.versions(given.run.run)}
        self._last_use: dict[int, int] = {}
        """Version to the last decision on an update that started from it."""
        self._last = StepRecord.before_first(given.run.run)
        self._earlier: dict[int, PendingUpdate] = {}
        self._models: dict[int, Path] = {}
        self._newest = _Model(0, "")
        self._slots: tuple[str, ...] = ()

    async def run(self, on_progress: Callable[[int, int], None] = lambda done, whole: None) -> ReplayReport:
        """Make every decision again; `on_progress(done, whole)` is called after each.

        Raises:
            NotFound: The files of an update are not kept any more (`[keep] updates`).
            CoveyError: The worker could not make a decision again.
        """
        arrivals = [self._arrived(step) for step in self._steps]
        self._last_use = {arrival.base_version: number for number, arrival in enumerate(arrivals, start=1)}
        description = await described(self._given)
        self._slots = tuple(description.slots)
        problems = await self._first_version()
        for step, arrived in zip(self._steps, arrivals, strict=True):
            if problems:
                break
            problems = await self._again(step, arrived)
            on_progress(step.number, len(self._steps))
        replayed = self._newest.version - bool(problems and self._newest.version)
        sha256, wrong = self._newest.sha256, tuple(problems)
        return ReplayReport(self._run.run, self._last.number, replayed, sha256, wrong, "decisions")

    def _arrived(self, step: StepRecord) -> PendingUpdate:
        update = self._store.updates(self._run.run, step.group)[0]
        require_kept(update, self._given.artifacts)
        # As it was when it came: no verdict yet.
        pending = load_pending(self._store, update)
        return replace(pending, update=replace(update, verdict="received", reason="", share=0.0, numbers={}))

    async def _first_version(self) -> list[str]:
        out, _ = files_of(self._given, 0)
        sha256 = await first_version(self._given, out)
        self._newest, self._models = _Model(0, sha256), {0: out}
        return different("version 0: the model", sha256, self._versions[0].model_sha256)

    async def _again(self, step: StepRecord, arrived: PendingUpdate) -> list[str]:
        given = DecisionInput(
            run=replace(self._run, roster=self._run.roster[: step.roster]),
            arrived=arrived,
            version=self._newest.version,
            last=self._last,
            earlier=self._earlier,
            models=self._models,
            slots=self._newest.slots,
            evicted=recorded_evictions(step),
        )
        out, slots = files_of(self._given, given.version + 1, self._slots)
        job = given.job(
            {digest: self._given.artifacts / digest for digest in given.digests()},
            out,
            slots,
            allow_path=self._given.allow_path,
        )
        result = await self._given.worker.do(STEP, job)
        again = given.step(result, step.decided_at)
        self._advance(given, result, again, out)
        return [f"decision {step.number}: {text}" for text in self._compare(step, again, result)]

    def _advance(self, given: DecisionInput, result: StepResult, again: StepRecord, out: Path) -> None:
        self._last = again
        self._earlier = kept_after(self._earlier, given.judged(result), again)
        if result.artifact is not None:
            for path in self._newest.slots.values():
                path.unlink(missing_ok=True)
            self._newest = _Model(given.version + 1, result.model_sha256, {p.name: p.path for p in result.state})
            self._models[self._newest.version] = out
        wanted = {self._newest.version, *again.pinned_versions}
        for version in set(self._models) - wanted:
            if self._last_use.get(version, 0) <= again.number:
                self._models.pop(version).unlink(missing_ok=True)

    def _compare(self, recorded: StepRecord, again: StepRecord, result: StepResult) -> list[str]:
        problems = different("the newest version before it", again.newest, recorded.newest)
        problems += different("the version made", again.version, recorded.version)
        problems += different("the verdicts", text_of(again.verdicts), text_of(recorded.verdicts))
        problems += different("the policy's state", again.state_sha256, recorded.state_sha256)
        version: VersionRecord | None = self._versions.get(again.version or -1)
        if version is not None:
            problems += different("the model", result.model_sha256, version.model_sha256)
        return problems
