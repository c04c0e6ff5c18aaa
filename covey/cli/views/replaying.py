"""`covey run replay`: make every round, or decision, of a run again from its stored updates."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from covey.cli.framework.offline import ARTIFACTS
from covey.coordinator.config import DATABASE, sqlite_url
from covey.coordinator.modes.contract import ReplayReport
from covey.coordinator.modes.registry import replay_of
from covey.errors import NotFound
from covey.storage.record.contract import Store
from covey.storage.sql.store import open_store
from covey.worker.client.client import Worker

LOG_FILE = "worker.log"


def replay_run(
    data_dir: Path, store_url: str | None, run: str, *, allow_path: bool, on_progress: Callable[[int, int], None]
) -> ReplayReport:
    """Replay a run of the coordinator whose data directory this is; it may be running or not.

    Args:
        data_dir: Where the update files are, and the database, if it is SQLite.
        store_url: The database, where it is another one.
        run: The run's id or name.
        allow_path: Whether the run may name its task by an import path.
        on_progress: Called after each decision with how many are done, of how many.

    Raises:
        NotFound: No such run or database, or files of updates that are not kept any more.
        SpecError: The run's mode is not known here.
    """
    with _opened(data_dir, store_url) as store, tempfile.TemporaryDirectory(prefix="covey-replay-") as folder:
        return asyncio.run(_replay(store, run, data_dir / ARTIFACTS, Path(folder), allow_path, on_progress))


@contextlib.contextmanager
def _opened(data_dir: Path, store_url: str | None) -> Iterator[Store]:
    if store_url is None and not (data_dir / DATABASE).is_file():
        raise NotFound(f"{data_dir} has no {DATABASE}; name a coordinator's data directory, or give --store URL")
    store = open_store(store_url or sqlite_url(data_dir))
    try:
        yield store
    finally:
        store.close()


async def _replay(
    store: Store, run: str, artifacts: Path, folder: Path, allow_path: bool, on_progress: Callable[[int, int], None]
) -> ReplayReport:
    record = store.run(run)
    worker = await Worker.start(folder / "worker", log_file=folder / LOG_FILE)
    try:
        return await replay_of(store, record, artifacts, worker, folder, allow_path=allow_path).run(on_progress)
    finally:
        await worker.stop()


def report_fields(report: ReplayReport) -> dict[str, Any]:
    """What `--json` prints."""
    return {**asdict(report), "problems": list(report.problems), "ok": report.ok}


def report_text(report: ReplayReport) -> str:
    """What people read."""
    lines = [f"{report.decisions} decisions of run {report.run} were made again from the stored updates"]
    if report.ok:
        lines.append(f"every verdict and all {report.versions} versions came out the same: {report.model_sha256}")
    return "\n".join([*lines, *report.problems])
