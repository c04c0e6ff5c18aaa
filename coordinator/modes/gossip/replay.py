"""A gossip run has nothing to be replayed at its coordinator: every decision was its nodes'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from covey.coordinator.modes.contract import Replaying
from covey.errors import SpecError
from covey.storage.record.contract import RunRecord, Store
from covey.worker.client.client import Worker


def refuse_replay(
    store: Store,
    run: RunRecord,
    artifacts: Path,
    worker: Worker,
    folder: Path,
    *,
    allow_path: bool = False,
    data_paths: Mapping[str, str] | None = None,
) -> Replaying:
    """Raises SpecError, with the command that looks at such a run."""
    raise SpecError(
        f"run {run.run} is of mode {run.mode!r}: no decision of it was made by the coordinator. "
        f"To compare the accounts of its nodes: covey run audit {run.run}"
    )
