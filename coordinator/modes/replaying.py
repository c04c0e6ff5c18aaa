"""What the replays of all modes do alike: the first version, the files that must be kept, and comparing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from covey.coordinator.modes.contract import ReplayInputs
from covey.errors import LayoutError, NotFound
from covey.layout import Layout
from covey.spec import parse_json
from covey.storage.record.contract import Json, UpdateRecord
from covey.worker.jobs.operations import DESCRIBE, INITIAL
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob


async def first_version(given: ReplayInputs, out: Path) -> str:
    """Make a run's version 0 again, and write it to `out`; returns the model's SHA-256 (hex).

    Raises:
        LayoutError: The task that is installed here makes another model than the run's.
        NotFound: The model that the run began with is not there any more.
        CoveyError: As the worker says.
    """
    run = given.run
    digest = parse_json(run.spec).model.digest
    source = given.artifacts / digest if digest else None
    if source is not None and not source.is_file():
        raise NotFound(f"the model that the run began with is gone: {source}; restore a backup")
    job = InitialJob(run.run, run.spec, out, given.allow_path, source=source)
    initial_version = await given.worker.do(INITIAL, job)
    if Layout.from_json(initial_version.layout) != Layout.from_json(run.layout):
        raise LayoutError("the task installed here makes another model than the run's")
    return initial_version.model_sha256


async def described(given: ReplayInputs) -> Description:
    """What the run's specification asks for, as the worker says. Raises CoveyError, as the worker says."""
    return await given.worker.do(DESCRIBE, DescribeJob(given.run.spec, given.allow_path, given.data_paths))


def files_of(given: ReplayInputs, number: int, slots: Iterable[str] = ()) -> tuple[Path, dict[str, Path]]:
    """Where a version of the replay goes, and what is kept with it, by slot."""
    folder = given.folder
    return folder / f"version-{number}", {slot: folder / f"{slot.replace('/', '-')}-{number}" for slot in slots}


def require_kept(update: UpdateRecord, artifacts: Path) -> None:
    """Check that an update's files are still there.

    Raises:
        NotFound: One is not.
    """
    for part in update.parts:
        if not (artifacts / part.artifact.digest).is_file():
            raise NotFound(
                f"the update of round {update.round} is not kept any more: a run that is to be replayed is submitted "
                "with [keep] updates = as many rounds as it has (1 is kept otherwise); one that was damaged has the "
                "event update-lost"
            )


def text_of(values: Sequence[Json]) -> str:
    """Verdicts as text: so that not-a-number equals itself."""
    return json.dumps([dict(value) for value in values], sort_keys=True)


def different(what: str, again: object, recorded: object) -> list[str]:
    """A line if something came out differently, else none."""
    return [] if again == recorded else [f"{what} came out as {again}, and is recorded as {recorded}"]
