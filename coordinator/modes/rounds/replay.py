"""Replaying a synchronous run: every committed round is aggregated again from the stored updates, and compared.

Nothing of what the coordinator made is taken for granted: from version 0 on, each version, with what optimizer, rule,
codec and method keep with it, comes out of the replay itself. What came from outside is as recorded: the updates.

Where a round had phases, the method is asked once more what followed from all answers. The phases that it opened before
are not planned again: the record of a round that was tried again does not keep who was lost before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from covey.artifact import artifact_of_file
from covey.coordinator.modes.contract import ReplayInputs, ReplayReport
from covey.coordinator.modes.replaying import described, different, files_of, first_version, require_kept, text_of
from covey.coordinator.modes.rounds.answers import collected_files, judged, step_answers
from covey.coordinator.runs.steps.evaluation import NodeMetrics, reported_loss
from covey.errors import CoveyError, SpecError
from covey.parts import PartFile, rule_phase
from covey.spec import parse_json
from covey.storage.record.contract import Json, StepRecord, UpdateRecord, VersionRecord
from covey.wire.identities.signing import UpdateStatement
from covey.worker.jobs.operations import STEP
from covey.worker.jobs.runs import Description
from covey.worker.jobs.steps import StepJob, StepResult


@dataclass
class _Made:
    """The newest version of the replay: its files, in the replay's own folder."""

    version: int
    sha256: str
    model: Path
    state: dict[str, Path] = field(default_factory=dict)

    def drop(self) -> None:
        """Delete its files."""
        for path in (self.model, *self.state.values()):
            path.unlink(missing_ok=True)


class RoundsReplay:
    """One replay."""

    def __init__(self, given: ReplayInputs) -> None:
        self._given, self._store, self._run = given, given.store, given.run
        self._steps = [step for step in given.store.steps(given.run.run) if step.version is not None]
        self._versions = {version.version: version for version in given.store.versions(given.run.run)}
        self._newest = _Made(0, "", files_of(given, 0)[0])
        self._description = Description(False, 0, {})

    async def run(self, on_progress: Callable[[int, int], None] = lambda done, whole: None) -> ReplayReport:
        """Aggregate every committed round again; `on_progress(done, whole)` is called after each.

        Raises:
            NotFound: The files of an update are not kept any more (`[keep] updates`).
            SpecError: The coordinator added secret noise: no round can be made again.
            CoveyError: The worker could not aggregate a round again.
        """
        privacy = parse_json(self._run.spec).privacy
        if privacy is not None and privacy.unit == "node" and not privacy.reproducible:
            raise SpecError(
                'the coordinator\'s noise ([privacy] unit = "node") was secret and is gone, so that no round comes out '
                "the same again; covey run audit checks the signatures all the same"
            )
        for step in self._steps:
            for update in self._rows(step):
                require_kept(update, self._given.artifacts)
        self._description = await described(self._given)
        problems = await self._first_version()
        rounds = same = 0
        for step in self._steps:
            if problems:
                break
            problems = [f"round {step.version}: {text}" for text in await self._again(step)]
            rounds += 1
            same += not problems
            on_progress(rounds, len(self._steps))
        return ReplayReport(self._run.run, rounds, same, self._newest.sha256, tuple(problems))

    async def _first_version(self) -> list[str]:
        sha256 = self._newest.sha256 = await first_version(self._given, self._newest.model)
        return different("version 0: the model", sha256, self._versions[0].model_sha256)

    def _rows(self, step: StepRecord) -> list[UpdateRecord]:
        """The updates that the rule looked at, and those that are recorded as if it had; in roster order."""
        judged = {(verdict["node"], verdict.get("phase", 1)) for verdict in step.verdicts}
        updates = [u for u in self._answers(step) if (u.node, u.phase) in judged or u.verdict == "accepted"]
        return [update for node in self._run.roster for update in updates if update.node == node]

    def _answers(self, step: StepRecord) -> list[UpdateRecord]:
        """All of the step's round."""
        return self._store.updates(self._run.run, step.cause[-1][0])

    async def _again(self, step: StepRecord) -> list[str]:
        rows = self._rows(step)
        problems = [text for update in rows for text in self._altered(update)]
        if problems:
            return problems
        job = self._job(step, rows)
        result = await self._given.worker.do(STEP, job)
        if result.artifact is None:
            return ["too few updates are left for the rule, and a version is recorded"]
        problems = self._compare(step, rows, result)
        base = self._newest
        self._newest = _Made(
            self._newest.version + 1, result.model_sha256, job.out, {part.name: part.path for part in result.state}
        )
        base.drop()
        return problems

    def _altered(self, update: UpdateRecord) -> list[str]:
        """Where an update's files, or what the rule is given of it, are not what its node signed."""
        who = f"the update of {update.node}"
        try:
            signed = UpdateStatement.from_bytes(update.statement)
        except CoveyError as error:
            return [f"the statement of {who} cannot be read: {error}"]
        problems = different(f"the signed weight of {who}", signed.weight, update.weight)
        losses = reported_loss(signed.metrics), reported_loss(cast(NodeMetrics, update.metrics))
        problems += different(f"the signed loss of {who}", *losses)
        problems += different(
            f"the signed parts of {who}",
            [(part.name, part.codec, part.digest) for part in signed.parts],
            [(part.name, part.codec, part.artifact.digest) for part in update.parts],
        )
        for part in update.parts:
            digest = artifact_of_file(self._given.artifacts / part.artifact.digest).digest
            problems += different(f"the digest of part {part.name!r} of {who}", digest, part.artifact.digest)
        return problems

    def _job(self, step: StepRecord, rows: list[UpdateRecord]) -> StepJob:
        run, base, ((number, phase), *_) = self._run, self._newest, reversed(step.cause)
        looked_at = {(row.node, row.phase) for row in rows}
        out, out_state = files_of(self._given, number, self._description.slots)
        answers = [
            replace(answer, verdict="received", reason="") if (answer.node, answer.phase) in looked_at else answer
            for answer in self._answers(step)
        ]
        return StepJob(
            run=run.run,
            spec_json=run.spec,
            layout=run.layout,
            version=base.version,
            models={base.version: base.model},
            answers=step_answers(
                answers, run.roster, self._given.artifacts.joinpath, for_method=self._description.phases > 1
            ),
            phase=phase,
            state=base.state,
            out=out,
            out_state=out_state,
            roster=run.roster[: step.roster],
            allow_path=self._given.allow_path,
            data_paths=self._given.data_paths,
        )

    def _compare(self, step: StepRecord, rows: list[UpdateRecord], result: StepResult) -> list[str]:
        number = self._newest.version + 1
        judged_again = judged(rows, result, rule_phase(self._description.parts))
        verdicts = text_of(_recorded_of(judged_again))
        problems = different("the newest version before it", self._newest.version, step.newest)
        problems += different("the version made", number, step.version)
        problems += different("the verdicts", verdicts, text_of(_by_node(step.verdicts)))
        problems += different("the verdicts", verdicts, text_of(_recorded_of(rows)))
        recorded = self._versions.get(number)
        if recorded is None:
            return [*problems, f"version {number} is not recorded"]
        collected = collected_files(self._description, self._versions[number - 1], judged_again)
        return problems + _compare_version(result, collected, recorded)


def _compare_version(result: StepResult, collected: Sequence[PartFile], recorded: VersionRecord) -> list[str]:
    problems = different("the model", result.model_sha256, recorded.model_sha256)
    digest = result.artifact.digest if result.artifact else ""
    problems += different("the model's file", digest, recorded.artifact.digest)
    state = _digests([*(file.part for file in result.state), *collected]), _digests(recorded.state)
    return problems + different("what is kept with the version", *state)


def _digests(files: Iterable[PartFile]) -> list[tuple[str, str, str]]:
    return sorted((file.name, file.codec, file.artifact.digest) for file in files)


def _recorded_of(rows: Iterable[UpdateRecord]) -> list[Json]:
    """The verdicts of a round, as its updates have them."""
    names = ("round", "node", "verdict", "reason", "share", "numbers")
    return _by_node(
        {name: getattr(row, name) for name in names} | ({"phase": row.phase} if row.phase > 1 else {}) for row in rows
    )


def _by_node(verdicts: Iterable[Json]) -> list[Json]:
    return sorted(verdicts, key=lambda verdict: (str(verdict["node"]), verdict.get("phase", 1) != 1))
