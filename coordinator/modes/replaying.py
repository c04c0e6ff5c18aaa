"""What the replays of all modes do alike: the first version, the files that must be kept, and comparing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from covey.errors import LayoutError, NotFound
from covey.layout import Layout
from covey.spec import parse_json
from covey.storage.record.contract import Json, RunRecord, UpdateRecord
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import INITIAL
from covey.worker.jobs.runs import InitialJob


async def first_version(worker: Worker, run: RunRecord, out: Path, artifacts: Path, *, allow_path: bool) -> str:
    """Make a run's version 0 again, and write it to `out`; returns the model's SHA-256 (hex).

    Args:
        worker: Makes it.
        run: The run.
        out: The file.
        artifacts: Where the run's files are, and among them the model that it began with, if it was given one.
        allow_path: Whether the task may be named by its import path.

    Raises:
        LayoutError: The task that is installed here makes another model than the run's.
        NotFound: The model that the run began with is not there any more.
        CoveyError: As the worker says.
    """
    digest = parse_json(run.spec).model.digest
    source = artifacts / digest if digest else None
    if source is not None and not source.is_file():
        raise NotFound(f"the model that the run began with is gone: {source}; restore a backup")
    initial_version = await worker.do(INITIAL, InitialJob(run.run, run.spec, out, allow_path, source=source))
    if Layout.from_json(initial_version.layout) != Layout.from_json(run.layout):
        raise LayoutError("the task installed here makes another model than the run's")
    return initial_version.model_sha256


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
