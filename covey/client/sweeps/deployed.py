"""A sweep's runs at a coordinator: each is submitted once, under a name that says what it is, and found again by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.specification import parsed
from covey.client.sweeps.events import Failed, Measured
from covey.client.sweeps.machine import Work
from covey.client.sweeps.sweep import Sweep
from covey.client.sweeps.trials import Trials
from covey.client.values import Run
from covey.errors import Conflict, NotFound, SpecError

P = ParamSpec("P")
R = TypeVar("R")


class DeployedTrials(Trials):
    """Runs that a coordinator takes care of; they go on while nobody runs the sweep.

    A run cannot wait at a rung for its trial's other seeds: it goes on, and is stopped when the trial is given up.
    What it did beyond the rung counts for nothing before the next one.

    Args:
        sweep: Which.
        connection: To the coordinator; it is closed with this.
        is_new: Whether the sweep begins now: then its runs' names must be free.
    """

    def __init__(self, sweep: Sweep, connection: Connection, *, is_new: bool) -> None:
        super().__init__(sweep)
        self._connection, self._is_new = connection, is_new
        self._turn = threading.Lock()
        self._begun: set[str] = set()
        """The names of runs that were measured, or are."""
        self._threads = ThreadPoolExecutor(self.at_once + 1)
        """One for each run that is watched, and one that always has a turn."""

    @property
    @override
    def at_once(self) -> int:
        return self.sweep.section.concurrency * len(self.sweep.seeds)

    @override
    async def start(self) -> None:
        name = self.sweep.run_name(0, self.sweep.seeds[0], 0)
        if self._is_new and await self._do(self._named, name) is not None:
            raise Conflict(f"a run {name} exists: another sweep had this name; write another one as sweep.name")

    @override
    async def close(self) -> None:
        await asyncio.to_thread(self._connection.close)  # those that watch end with it
        self._threads.shutdown(wait=False)

    async def _do(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    @override
    async def measure(self, work: Work) -> Measured | Failed:
        return await self._do(self._measure, work)

    @override
    async def give_up(self, trial: int, rung: int) -> None:
        for seed in self.sweep.seeds:
            await self._do(self._stop, self.sweep.run_name(trial, seed, rung))

    def _stop(self, name: str) -> None:
        run = self._named(name)
        if run is not None and not run.ended:
            with self._turn, contextlib.suppress(Conflict):  # it has ended meanwhile
                self._connection.stop(run.run)

    def _named(self, name: str) -> Run | None:
        with self._turn:
            try:
                return self._connection.run(f"{self.sweep.spec.study}/{name}")  # /NAME: of no study
            except NotFound:
                return None

    def _measure(self, work: Work) -> Measured | Failed:
        name = self.sweep.run_name(work.trial, work.seed, work.rung)
        spec = self.sweep.run_spec(work.params, work.seed, name, work.rung)
        run = self._named(name)
        if run is not None:
            _require_same(run, spec)
        else:
            try:
                run = self._submitted(work, spec)
            except SpecError as error:  # these values do not go together
                return Failed(work.trial, work.rung, work.seed, str(error))
        self._begun.add(name)
        try:
            for change in self._connection.watch(run.run):
                if change.run.ended or (change.run.done >= self.target(work) and self._is_evaluated(change.run, work)):
                    break
            with self._turn:
                return self.outcome(work, self._connection.run(run.run), self._connection.rounds(run.run))
        except SpecError:  # no run of the sweep has a value
            for begun in list(self._begun):
                self._stop(begun)
            raise

    def _submitted(self, work: Work, spec: dict[str, Any]) -> Run:
        if self.sweep.is_population and work.rung:
            source = work.trial if work.source is None else work.source
            begin = self._named(self.sweep.run_name(source, work.seed, work.rung - 1))
            if begin is None:
                raise NotFound(f"trial {work.trial} goes on with the model of trial {source}, whose run is gone")
            spec["model"] = {"initial": f"run:{begin.run}"}
        with self._turn:
            return self._connection.submit(spec)

    def _is_evaluated(self, run: Run, work: Work) -> bool:
        """Whether a run that goes on has its value of a rung."""
        if self.sweep.section.prune is None or self.sweep.is_population:
            return False  # its end counts
        with self._turn:
            rounds = self._connection.rounds(run.run)
        return self.is_known(work, rounds)


def _require_same(run: Run, spec: dict[str, Any]) -> None:
    """Refuse a run that only has the name of one of the sweep's. Raises Conflict."""
    wanted, known = json.loads(parsed(spec, later=True).to_json()), dict(run.spec)
    if {**wanted, "model": None} != {**known, "model": None}:
        raise Conflict(
            f"run {run.run} is called {run.name}, and has another specification than the sweep's run of that name"
        )
