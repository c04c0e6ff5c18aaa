"""Deleting a run that has ended: its record, then the files that no other run needs, and its logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from covey.coordinator.runs.retention import Retention
from covey.storage.record.contract import Store


class Sized(Protocol):
    """Where the files are."""

    def size(self, digest: str) -> int | None:
        """How many bytes the file of a digest has; None: there is none."""


@dataclass(frozen=True)
class DeletionServices:
    """What deleting is given.

    Attributes:
        store: The record.
        files: Model and update files.
        retention: Drops them.
        events: The folder of event logs; None: there are none.
        drop_site_logs: Deletes what nodes have shared of their logs about a run; how many bytes that were.
    """

    store: Store
    files: Sized
    retention: Retention
    events: Path | None = None
    drop_site_logs: Callable[[str], int] = lambda run: 0


@dataclass(frozen=True)
class DeletedRun:
    """What was deleted."""

    files: int
    bytes: int


def delete_run(services: DeletionServices, run: str) -> DeletedRun:
    """Delete a run by its id. In the record's thread: nobody refers to its files meanwhile.

    Raises:
        Conflict: It has not ended.
        NotFound: There is no such run.
    """
    digests = services.store.delete_run(run)
    logs = sorted(services.events.glob(f"{run}.*jsonl")) if services.events is not None else []
    sizes = [size for size in map(services.files.size, digests) if size is not None]
    sizes += [path.stat().st_size for path in logs if path.exists()]
    services.retention.drop(digests)
    for path in logs:
        path.unlink(missing_ok=True)
    return DeletedRun(len(sizes), sum(sizes) + services.drop_site_logs(run))
