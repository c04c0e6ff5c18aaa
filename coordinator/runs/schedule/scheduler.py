"""Takes care of several runs at once: those in progress first, then by priority, then the oldest submissions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.ports import RunServices
from covey.coordinator.runs.schedule.idleness import Idleness
from covey.coordinator.runs.schedule.run_nodes import RunNodes
from covey.coordinator.studies import Studies, study_of
from covey.driver.ending import end
from covey.errors import CoveyError, Fenced
from covey.layout import Layout
from covey.machines.places import Want, no_place
from covey.spec.training import MOST_GPU_MEMORY_GIB
from covey.storage.record.contract import RunRecord

MOST_RUNS = 16
"""Under care at once, those that do not work now included: of more a node keeps no state."""
LOOK_AGAIN_S = 2.0
"""How often it is looked whether a place is free."""
MODEL_BYTES = "model_bytes"
"""Of the detail of the event that a run was submitted: the size of its model."""
log = structlog.get_logger(room="coordinator")


class Scheduler:
    """Starts runs while there is room, and the next one when one has ended.

    Runs share the nodes, and the coordinator's worker: `covey.coordinator.runs.ports.Worker` says what bound a long
    step of one run puts on another. Which node has a place for which run: `covey.machines.places`.

    Args:
        services: What runs are given.
        runs: Where they are found.
        take_up: Makes an active run from a recorded one.
        max_runs: How many at once.
        studies: Which nodes work for which study.
    """

    def __init__(
        self,
        services: RunServices,
        runs: ActiveRuns,
        take_up: Callable[[RunServices, RunRecord], ActiveRun],
        max_runs: int,
        studies: Studies,
    ) -> None:
        self._services, self._runs, self._take_up, self._max_runs = services, runs, take_up, max_runs
        self._places, self._studies = runs.places, studies
        self._places.max_runs = max_runs
        self._wanted = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], ActiveRun] = {}
        self._idleness = Idleness(services)
        self._waiting: dict[str, Want] = {}
        """Runs on record that are not taken care of, as they were when it was looked last."""
        self._is_fresh = False
        """Whether that was after the last one was submitted, and the last change of the studies."""
        self._known = studies.now()
        self._model_bytes: dict[str, int] = {}
        """Of those."""
        self._reasons: dict[str, str] = {}
        """What they wait for."""
        self._given_up: set[str] = set()
        """Runs that failed in a way that could not be recorded: a restart tries them again."""

    def wake(self) -> None:
        """Look again: a run was submitted, or stopped, or a node shut out of a study."""
        self._wanted.set()

    def awaited(self, run: str) -> str:
        """For which place a run waits, or on which node it has none, in words; empty: it has all."""
        if run in self._runs.active:
            return self._places.lacking(run)
        most, full = self._room
        return self._reasons.get(run) or (full if most <= 0 else "")

    def would_wait(self, record: RunRecord, model_bytes: int) -> str:
        """What a run would wait for that is not on record, if it were submitted now; empty: it would begin."""
        (most, full), want = self._room, self._want_of(record, model_bytes)
        return self._places.choose([*self._waiting.values(), want], most, full)[1].get(want.run, "")

    async def serve(self) -> None:
        """Care for runs until cancelled.

        Raises:
            Fenced: Another coordinator took over.
        """
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            while True:
                self._wanted.clear()
                self._is_fresh = False
                await self._start_next()
                if wanted.done():
                    wanted = asyncio.create_task(self._wanted.wait())
                done: set[asyncio.Task[Any]] = set()
                while not done and not self._is_due:
                    done, _ = await asyncio.wait(
                        [wanted, *self._tasks], timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED
                    )
                for task in [task for task in self._tasks if task in done]:
                    await self._ended(task)
        finally:
            await self._stop(wanted)

    @property
    def _room(self) -> tuple[int, str]:
        """How many more runs may be taken up, and why no more: one that does nothing keeps no place from others."""
        working, taken = self._places.working, len(self._tasks)
        if (most := MOST_RUNS - taken) < self._max_runs - working:
            return most, f"{no_place(taken, MOST_RUNS)}, idle ones too"
        return self._max_runs - working, no_place(working, self._max_runs)

    @property
    def _is_due(self) -> bool:
        """Whether a run may be taken up now."""
        chosen, most = self._look()
        return bool(chosen) or (most > 0 and not self._is_fresh)

    def _look(self) -> tuple[list[Want], int]:
        """Note who works, and what others wait for; returns those that may begin now, and how many might."""
        if (known := self._studies.now()) is not self._known:
            self._known, self._is_fresh = known, False
        places = self._places
        places.study_runs = {name: study.max_runs for name, study in known.items() if study.max_runs}
        idle = [run for run in self._tasks.values() if self._idleness.of(run)]
        places.idle = frozenset(run.run.run for run in idle)
        places.waiting = frozenset(run.run.run for run in idle if run.is_waiting)
        self._runs.settle(self._services.clock())
        if self._services.operator.draining:
            self._reasons = {}
            return [], 0
        most, full = self._room
        chosen, self._reasons = places.choose(self._waiting.values(), most, full)
        if self._is_fresh and not chosen:
            self._runs.settle(self._services.clock(), left_over=True)
        return chosen, most

    async def _start_next(self) -> None:
        """Take up as many runs as there is room for."""
        if self._look()[1] <= 0:
            return
        records = await self._read_waiting()
        for want in self._look()[0]:
            del self._waiting[want.run]
            await self._start(records[want.run], want)

    async def _read_waiting(self) -> dict[str, RunRecord]:
        """The runs that may be taken up, from the record."""
        store = self._services.store
        records = await store.persist(store.store.runs, states=("running", "queued"), limit=1_000_000)
        waiting = {r.run: r for r in records if r.run not in self._runs.active and r.run not in self._given_up}
        wants: dict[str, Want] = {}
        for run, record in waiting.items():
            try:
                wants[run] = await self._want(record)
            except Fenced:
                raise
            except Exception as error:
                log.error("a run's record cannot be read", run=run, exc_info=error)
                await self._fail(record, f"its record is damaged: {error!r}")
        self._waiting = wants
        self._model_bytes = {run: self._model_bytes[run] for run in wants}
        self._is_fresh = True
        return waiting

    async def _want(self, record: RunRecord) -> Want:
        if record.run not in self._model_bytes:
            self._model_bytes[record.run] = await self._size(record)
        return self._want_of(record, self._model_bytes[record.run])

    def _want_of(self, record: RunRecord, model_bytes: int) -> Want:
        study, spec = study_of(record), json.loads(record.spec)
        gpu_gib = min(
            spec.get("training", {}).get("gpu_memory_gib", 0), MOST_GPU_MEMORY_GIB
        )  # runs of once had no bound
        return Want(
            record.run,
            int(spec.get("priority", 0)),
            record.submitted_at,
            started=record.state == "running",
            model_bytes=model_bytes,
            gpu_bytes=int(gpu_gib * 2**30),
            scope=self._studies.scope(study),
            without=self._studies.evicted(study),
            study=study,
        )

    async def _size(self, record: RunRecord) -> int:
        """Of a run's model in bytes; 0: unknown."""
        if record.layout:
            return Layout.from_json(record.layout).part("model").nbytes
        store = self._services.store
        events = await store.persist(store.store.events, run=record.run, kind="run-submitted", limit=1)
        size = events[0].detail.get(MODEL_BYTES) if events else None
        return size if isinstance(size, int) else 0

    async def _start(self, record: RunRecord, want: Want) -> None:
        log.info("run taken", run=record.run, name=record.name, state=record.state)
        services = replace(self._services, nodes=RunNodes(self._services.nodes, self._places, record.run))
        self._places.enter(want)
        self._runs.tell_places(self._services.clock())
        try:
            run = self._take_up(services, record)
        except CoveyError as error:  # its mode is not one that is known here
            self._places.leave(record.run)
            await self._fail(record, str(error))
            return
        self._runs.add(run)
        self._tasks[asyncio.create_task(run.execute())] = run
        self._services.changes.notify()

    async def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        self._places.leave(run.run.run)
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
