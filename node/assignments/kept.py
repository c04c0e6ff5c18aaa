"""Files of what a node keeps of its runs, when they are used."""

from __future__ import annotations

from pathlib import Path

from covey.artifact import Artifact
from covey.errors import StoreError
from covey.node.ports import Files


def kept_file(files: Files, run: str, name: str, artifact: Artifact) -> Path:
    """A file of a run's local state.

    Raises:
        StoreError: It is damaged or missing; nobody else has it.
    """
    if not files.check(artifact.digest):
        raise StoreError(
            f"what this node keeps of run {run} ({name}) is damaged or missing: {files.path(artifact.digest)}; restore "
            "this node's data directory, or move its state/carried.json away to begin anew without it (the account of "
            "privacy beside that has to stay), and start again"
        )
    return files.path(artifact.digest)
