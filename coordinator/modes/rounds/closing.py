"""A round, or a phase of it, that is being aggregated: its answers, the worker's job, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from covey.coordinator.modes.rounds.answers import step_answers
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.ports import Files
from covey.coordinator.runs.steps.commit import discard_scratch
from covey.coordinator.runs.steps.damage import intact
from covey.storage.files.room import scratch_files
from covey.storage.record.contract import UpdateRecord
from covey.worker.jobs.steps import StepJob, StepResult

OUT = ""
"""The model, among the files of a step: no other has this name."""


@dataclass
class Closing:
    """The round that is being aggregated: its updates, the worker's job, and what came out."""

    updates: list[UpdateRecord] = field(default_factory=list)
    answers: list[UpdateRecord] = field(default_factory=list)
    """The same, and those who sent none, or one that does not count."""
    job: StepJob | None = None
    result: StepResult | None = None

    def outcome(self) -> tuple[StepJob, StepResult]:
        """The job, and what came out."""
        if self.job is None or self.result is None:
            raise RuntimeError("a step without a result")
        return self.job, self.result

    def discard(self, files: Files) -> None:
        """Nothing comes of it: drop what the job had room for. Without a job there is nothing to drop."""
        if self.job is not None:
            discard_scratch(files, self.job)


def step_job(active: ActiveRun, closing: Closing, phase: int) -> StepJob:
    """What the worker is given to make the next step of a round, with room for what it writes.

    Raises:
        CorruptChunk: A file of the newest version is damaged or missing.
    """
    run, services, base, prepared = active.run, active.services, active.newest(), active.ready()
    files = services.files
    path = partial(intact, files)
    models = {base.version: path(base.artifact.digest)}
    state = {part.name: path(part.artifact.digest) for part in base.state}
    room = scratch_files(files, {OUT: prepared.layout.file_bytes, **prepared.slot_bytes()})
    return StepJob(
        run=run.run,
        spec_json=run.spec,
        layout=run.layout,
        version=base.version,
        models=models,
        answers=step_answers(closing.answers, run.roster, files.path, for_method=prepared.description.phases > 1),
        phase=phase,
        state=state,
        out=room.pop(OUT),
        out_state=room,
        roster=run.roster,
        allow_path=services.allow_paths,
        data_paths=services.data_paths,
    )
