"""The figures of a statistics run, read from the totals that its newest version keeps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from covey.client.reading.names import RunName
from covey.client.values import Run, Version
from covey.errors import NotFound
from covey.figures import METHOD, TOTALS, Figures, FiguresForm
from covey.parts import slot


class Versions(Protocol):
    """Where versions are read: `covey.client.connection.Connection`."""

    def export(self, run: RunName, to: str | Path, *, node: str = "") -> Version:
        """Write a version's file, or one of the files beside it."""


def has_figures(run: Run) -> bool:
    """Whether a run is one that makes statistics."""
    return bool(run.spec.get("method", {}).get("name") == METHOD)


def read_figures(versions: Versions, run: Run) -> Figures:
    """What a statistics run came to; also while the coordinator is stopped.

    Args:
        versions: Of the federation.
        run: As it was read.

    Raises:
        NotFound: It makes no statistics, or has not come to any yet; the message says what there is.
        CorruptChunk: What came is not what is on record.
    """
    if not has_figures(run):
        raise NotFound(f'run {run.run} trains a model; statistics are of runs with [method] name = "{METHOD}"')
    if run.rounds_committed < run.rounds:
        if run.ended:
            raise NotFound(
                f"run {run.run} is {run.state}: it ended before its last round, with which its figures "
                f"come ({run.rounds_committed} of {run.rounds} rounds); submit it again"
            )
        raise NotFound(
            f"run {run.run} is {run.state}, with {run.rounds_committed} of {run.rounds} rounds: its figures come with "
            "the last one; covey run logs says what it waits for"
        )
    with tempfile.TemporaryDirectory(prefix="covey-figures-") as folder:
        path = Path(folder) / TOTALS
        versions.export(run.run, path, node=slot(TOTALS))
        return Figures.from_bytes(path.read_bytes(), FiguresForm.of(run.spec["method"]["options"]))
