"""Making every round, or decision, of a run again from its stored updates."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from covey.client.loop import LoopThread
from covey.client.reading.stored import ARTIFACTS
from covey.coordinator.config import DATABASE, sqlite_url
from covey.coordinator.modes.contract import ReplayInputs, ReplayReport
from covey.coordinator.modes.registry import replay_of
from covey.errors import NotFound, PluginError
from covey.spec import parse_json
from covey.storage.record.contract import Store
from covey.storage.sql.store import open_store
from covey.worker.client.client import Worker

__all__ = ["ReplayReport", "replay_run"]

LOG_FILE = "worker.log"
OnDecision = Callable[[int, int], None]


def replay_run(
    data_dir: Path,
    run: str,
    *,
    store_url: str | None = None,
    allow_path: bool = False,
    data_paths: Mapping[str, str] | None = None,
    on_progress: OnDecision = lambda done, whole: None,
) -> ReplayReport:
    """Replay a run of the coordinator whose data directory this is; it may be running or not.

    Args:
        data_dir: Where the update files are, and the database, if it is SQLite.
        run: The run's id or name.
        store_url: The database, where it is another one.
        allow_path: Whether the run may name its task, rules and codecs by import paths.
        data_paths: Where the task finds the coordinator's own data (`Task.central_data`), by name.
        on_progress: Called after each decision with how many are done, of how many; in a thread of its own.

    Raises:
        NotFound: No such run or database, or files of updates that are not kept any more.
        SpecError: The run's mode is not known here.
        StoreError: The database is not at this version's schema.
    """
    with (
        _opened(data_dir, store_url) as store,
        tempfile.TemporaryDirectory(prefix="covey-replay-") as folder,
        LoopThread() as loop,
    ):
        return loop.run(_replay(store, run, data_dir / ARTIFACTS, Path(folder), on_progress, allow_path, data_paths))


@contextlib.contextmanager
def _opened(data_dir: Path, store_url: str | None) -> Iterator[Store]:
    if store_url is None and not (data_dir / DATABASE).is_file():
        raise NotFound(f"{data_dir} has no {DATABASE}; name a coordinator's data directory, or give --store URL")
    store = open_store(store_url or sqlite_url(data_dir), migrate=False)
    try:
        yield store
    finally:
        store.close()


async def _replay(
    store: Store,
    run: str,
    artifacts: Path,
    folder: Path,
    on_progress: OnDecision,
    allow_path: bool,
    data_paths: Mapping[str, str] | None,
) -> ReplayReport:
    record = store.run(run)
    task = parse_json(record.spec).task.name
    if ":" in task and not allow_path:
        raise PluginError(
            f"the run names its task by the import path {task!r}; to run its code here give --allow-paths "
            "(from Python: allow_path=True), with its folder on PYTHONPATH"
        )
    worker = await Worker.start(folder / "worker", log_file=folder / LOG_FILE)
    try:
        given = ReplayInputs(store, record, artifacts, worker, folder, allow_path, data_paths or {})
        return await replay_of(given).run(on_progress)
    finally:
        await worker.stop()
