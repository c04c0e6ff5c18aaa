"""Takes care of several runs at once: those in progress first, then the oldest submissions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.ports import RunServices
from covey.driver.ending import end
from covey.errors import CoveyError, Fenced
from covey.storage.record.contract import RunRecord

MOST_RUNS = 16
"""Under care at once, those that wait for nodes included: of more a node keeps no state."""
LOOK_AGAIN_S = 2.0
"""How often it is looked whether a run waits for nodes; one that does for so long gives its place to another."""
log = structlog.get_logger(room="coordinator")


class Scheduler:
    """Starts runs while there is room, and the next one when one has ended.

    Runs share the nodes, and the coordinator's worker: `covey.coordinator.runs.ports.Worker` says what bound a long
    step of one run puts on another.

    Args:
        services: What runs are given.
        runs: Where they are found.
        take_up: Makes an active run from a recorded one.
        max_runs: How many at once.
    """

    def __init__(
        self,
        services: RunServices,
        runs: ActiveRuns,
        take_up: Callable[[RunServices, RunRecord], ActiveRun],
        max_runs: int,
    ) -> None:
        self._services, self._runs, self._take_up, self._max_runs = services, runs, take_up, max_runs
        self._wanted = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], ActiveRun] = {}
        self._waits_since: dict[str, float] = {}
        self._given_up: set[str] = set()
        """Runs that failed in a way that could not be recorded: a restart tries them again."""

    def wake(self) -> None:
        """Look again: a run was submitted."""
        self._wanted.set()

    async def serve(self) -> None:
        """Care for runs until cancelled.

        Raises:
            Fenced: Another coordinator took over.
        """
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            while True:
                self._wanted.clear()
                await self._start_next()
                room = self._room
                if wanted.done():
                    wanted = asyncio.create_task(self._wanted.wait())
                done: set[asyncio.Task[Any]] = set()
                while not done and self._room <= room:
                    done, _ = await asyncio.wait(
                        [wanted, *self._tasks], timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED
                    )
                for task in [task for task in self._tasks if task in done]:
                    await self._ended(task)
        finally:
            await self._stop(wanted)

    async def _start_next(self) -> None:
        """Take up as many runs as there is room for."""
        room = self._room
        if self._services.operator.draining or room <= 0:
            return
        store = self._services.store
        records = await store.persist(store.store.runs, states=("running", "queued"), limit=1_000_000)
        waiting = [run for run in records if run.run not in self._runs.active and run.run not in self._given_up]
        waiting.sort(key=lambda run: (run.state != "running", run.submitted_at, run.run))
        for record in waiting[:room]:
            await self._start(record)

    @property
    def _room(self) -> int:
        """How many more runs may be taken up: one that waits for nodes keeps its place from no other."""
        working = sum(not self._is_stuck(run) for run in self._tasks.values())
        return min(self._max_runs - working, MOST_RUNS - len(self._tasks))

    def _is_stuck(self, run: ActiveRun) -> bool:
        """Whether it waits for nodes, and not only for a moment, as each does until it has heard who is there."""
        if not run.is_waiting:
            self._waits_since.pop(run.run.run, None)
            return False
        now = asyncio.get_running_loop().time()
        return now - self._waits_since.setdefault(run.run.run, now) >= LOOK_AGAIN_S

    async def _start(self, record: RunRecord) -> None:
        log.info("run taken", run=record.run, name=record.name, state=record.state)
        try:
            run = self._take_up(self._services, record)
        except CoveyError as error:  # its mode is not one that is known here
            await self._fail(record, str(error))
            return
        self._runs.add(run)
        self._tasks[asyncio.create_task(run.execute())] = run
        self._services.changes.notify()

    async def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        self._waits_since.pop(run.run.run, None)
        self._runs.remove(run)
        self._services.changes.notify()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Fenced):
            raise error
        if error is not None:
            log.error("the run's care failed", run=run.run.run, exc_info=error)
            await self._fail(run.run, f"internal error: {error!r}")

    async def _fail(self, record: RunRecord, reason: str) -> None:
        """Record that a run failed of which its own task could not; where that fails too, leave it for a restart."""
        store = self._services.store
        try:
            await store.persist(store.store.finish_run, record.run, "failed", reason, self._services.now())
        except Fenced:
            raise
        except Exception as error:
            self._given_up.add(record.run)
            log.error("a run is left as it is until the next start", run=record.run, exc_info=error)

    async def _stop(self, wanted: asyncio.Task[bool]) -> None:
        await end([wanted, *self._tasks])
        for run in self._tasks.values():
            self._runs.remove(run)
        self._tasks.clear()
