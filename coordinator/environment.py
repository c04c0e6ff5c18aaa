"""What the rooms of the coordinator share: one object, made by the daemon, handed to every service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from covey.coordinator.admin.metrics import CoordinatorMetrics
from covey.coordinator.admin.record_snapshot import Census
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.nodes.sessions import Sessions
from covey.errors import CoveyError, StoreUnavailable
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import Store
from covey.wire.authority import Authority
from covey.wire.grants import Grants
from covey.wire.signing import SigningKey
from covey.worker.client.supervisor import WorkerSupervisor

if TYPE_CHECKING:
    from covey.coordinator.runs.active_run import RunBase

P = ParamSpec("P")
R = TypeVar("R")
log = structlog.get_logger(room="coordinator")
RETRY_S = 1.0


class StoreThread:
    """The store behind one worker thread, so that no SQL runs on the event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.up = True
        """Whether the database could be reached when it was last asked."""
        self.on_call: Callable[[float], object] | None = None
        """Told the seconds that each call took, in the store's thread."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one method of the store; its errors come out here."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._timed(lambda: method(*args, **kwargs))
            )
        except StoreUnavailable:
            self.up = False
            raise
        self.up = True
        return result

    async def alone(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run something in the store's thread that asks no database: nothing else is done there meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def _timed(self, work: Callable[[], R]) -> R:
        began = time.perf_counter()
        try:
            return work()
        finally:
            if self.on_call is not None:
                self.on_call(time.perf_counter() - began)

    async def persist(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `call`, but while the database is away, wait for it: for decisions that must not be lost."""
        while True:
            try:
                return await self.call(method, *args, **kwargs)
            except StoreUnavailable as error:
                log.warning("the database is away; trying again", error=str(error), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Finish what is queued, then close the store."""
        await self.call(self.store.close)
        self._thread.shutdown()


class Changes:
    """Wakes those who watch whenever something worth showing changed."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def after(self, seen: int) -> int:
        """Wait until more than `seen` changes have been counted; returns the count."""
        while self.count <= seen:
            await self._event.wait()
        return self.count


@dataclass
class Environment:
    """Everything that the services of one coordinator share."""

    config: CoordinatorConfig
    store: StoreThread
    files: ArtifactFiles
    worker: WorkerSupervisor
    authority: Authority
    signing_key: SigningKey
    federation: str
    sessions: Sessions
    downloads: Grants[tuple[str, str]]
    """By (node, digest)."""
    uploads: Grants[str]
    """By the update's digest."""
    started_at: float = field(default_factory=time.time)
    """Every enrolled node is expected back for a while after this."""
    listen: str = ""
    enrol_listen: str = ""
    changes: Changes = field(default_factory=Changes)
    current: RunBase[Any] | None = None
    metrics: CoordinatorMetrics = field(default_factory=CoordinatorMetrics)
    metrics_url: str = ""
    """Where they can be scraped; empty: nowhere."""
    census: Census = field(default_factory=Census)
    paused: bool = False
    draining: bool = False
    node_keys: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Node to the id and raw bytes of its present signing key, as far as they were looked up."""
    drills: dict[str, str] = field(default_factory=dict)
    """Node to the attack with which it last connected; only those that did."""
    held_releases: list[str] | None = None
    """While a backup is made: files that are to be dropped after it."""
    evicted: set[str] = field(default_factory=set)
    queue_changed: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store.on_call = self.metrics.store_calls.observe
        self.metrics.evicted = self.evicted

    @property
    def state(self) -> str:
        """What the coordinator does: `running`, `paused` or `draining`."""
        return "draining" if self.draining else "paused" if self.paused else "running"

    def spawn(self, work: Coroutine[object, object, R]) -> asyncio.Task[R]:
        """Do something in the background; what goes wrong is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, CoveyError):
            log.warning("background work failed", code=error.code, error=str(error))
        elif error is not None:
            log.error("background work failed", exc_info=error)

    @staticmethod
    def now() -> float:
        """Unix time in seconds."""
        return time.time()
