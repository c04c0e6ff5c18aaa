"""A sweep's runs as simulations in this process: a folder for each trial and seed, which other commands can read."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.models.initial import given_file
from covey.client.specification import parsed
from covey.client.sweeps.curves import curve_of
from covey.client.sweeps.events import Failed, Measured
from covey.client.sweeps.machine import Work
from covey.client.sweeps.sweep import Sweep
from covey.client.sweeps.trials import Trials
from covey.client.target import Target
from covey.client.values import Run
from covey.errors import NotFound, PluginError, RunFailed, SpecError, StoreError
from covey.simulation.plan import Plan
from covey.simulation.pool import Crew
from covey.simulation.simulation import simulate
from covey.spec.unread import written_keys

RUNS, CHECK, CREWS = "runs", "check", "crews"


@dataclass(frozen=True)
class Machines:
    """What simulates.

    Attributes:
        nodes: How many nodes a run has.
        processes: How many train at a time, for each run that is simulated at a time.
        paths: Where the task finds the nodes' data.
        device: What they train on.
    """

    nodes: int
    processes: int = 1
    paths: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def crew(self, folder: Path) -> Crew:
        """The processes of one simulation at a time."""
        return Crew(folder, self.processes, device=self.device)


class SimulatedTrials(Trials):
    """Runs that are simulated; a run is paused at a rung, and goes on from there, also after a kill.

    Args:
        sweep: Which.
        folder: The sweep's.
        machines: What simulates.
        is_new: Whether the sweep begins now: then it is tried first whether a run can work, and gives the metric.
    """

    def __init__(self, sweep: Sweep, folder: Path, machines: Machines, *, is_new: bool) -> None:
        super().__init__(sweep)
        self._folder, self._machines, self._is_new = folder.absolute(), machines, is_new
        self._crews = [machines.crew(self._folder / CREWS / str(number)) for number in range(self.at_once)]
        self._idle: asyncio.Queue[Crew] = asyncio.Queue()

    @property
    @override
    def at_once(self) -> int:
        return self.sweep.section.concurrency

    @override
    async def start(self) -> None:
        for crew in self._crews:
            await crew.start()
            self._idle.put_nowait(crew)
        if self._is_new:
            await self._check()

    @override
    async def close(self) -> None:
        await asyncio.gather(*(crew.stop() for crew in self._crews))
        shutil.rmtree(self._folder / CREWS, ignore_errors=True)

    @override
    async def give_up(self, trial: int, rung: int) -> None:
        """It is paused at the rung, and nobody takes it up again."""

    @override
    async def measure(self, work: Work) -> Measured | Failed:
        folder = self._folder_of(work.trial, work.seed)
        name = self.sweep.run_name(work.trial, work.seed, work.rung)
        is_last = self.sweep.is_population or work.rung == len(self.sweep.rungs) - 1
        async with self._crew() as crew:
            run = await asyncio.to_thread(_begun, folder, name, is_first=work.rung == 0)
            if run is None or not (
                run.ended or (not is_last and await asyncio.to_thread(self._is_there, work, folder))
            ):
                try:
                    plan = await asyncio.to_thread(self._plan_of, work, folder, name)
                    until, resumed = None if is_last else self.target(work), run.run if run is not None else ""
                    await simulate(replace(plan, until=until, resumed=resumed), crew=crew)
                except (SpecError, PluginError) as error:  # these values do not go together
                    return Failed(work.trial, work.rung, work.seed, str(error))
        with Connection(Target(folder)) as record:
            return self.outcome(work, record.run(name), record.rounds(name))

    def _is_there(self, work: Work, folder: Path) -> bool:
        """Whether a run that goes on came to the rung before a kill. Blocking."""
        with Connection(Target(folder)) as record:
            return self.is_known(work, record.rounds(self.sweep.run_name(work.trial, work.seed, work.rung)))

    @contextlib.asynccontextmanager
    async def _crew(self) -> AsyncIterator[Crew]:
        crew = await self._idle.get()
        try:
            yield crew
        finally:
            self._idle.put_nowait(crew)

    def _folder_of(self, trial: int, seed: int) -> Path:
        return self._folder / RUNS / f"{trial}-{seed}"

    def _plan_of(self, work: Work, folder: Path, name: str) -> Plan:
        """Of a work's run, if nothing is on record of it. Blocking."""
        spec = self.sweep.run_spec(work.params, work.seed, name, work.rung)
        if self.sweep.is_population and work.rung:
            source = work.trial if work.source is None else work.source
            file = folder / f"begin-{work.rung}.safetensors"
            with Connection(Target(self._folder_of(source, work.seed))) as record:
                record.export(self.sweep.run_name(source, work.seed, work.rung - 1), file)
            spec["model"] = {"initial": str(file)}
        return self._plan(spec, folder)

    def _plan(self, spec: dict[str, Any], folder: Path) -> Plan:
        known = parsed(spec, later=True)
        given = given_file(known, Path())
        return Plan(
            known,
            self._machines.nodes,
            folder,
            self._machines.processes,
            paths=self._machines.paths,
            device=self._machines.device,
            written=tuple(written_keys(spec)),
            model=given.path if given is not None else None,
        )

    async def _check(self) -> None:
        """A run up to its first value, with the first of all values, which is thrown away."""
        folder, sweep = self._folder / CHECK, self.sweep
        shutil.rmtree(folder, ignore_errors=True)
        params = {key: dimension.examples[0] for key, dimension in sweep.section.space.items()}
        is_paused = len(sweep.rungs) > 1 and not sweep.is_population
        spec = sweep.shortened(sweep.run_spec(params, sweep.seeds[0], CHECK), None if is_paused else 1)
        try:
            async with self._crew() as crew:
                await simulate(replace(self._plan(spec, folder), until=1 if is_paused else None), crew=crew)
            with Connection(Target(folder)) as record:
                run = record.run(CHECK)
                if run.state in ("failed", "stopped"):
                    raise RunFailed(f"it is {run.state}: {run.reason}")
                curve_of(record.rounds(CHECK), sweep.metric)
        except RunFailed as error:
            raise SpecError(f"a run of one round, with the first of all values, cannot be measured: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _begun(folder: Path, name: str, *, is_first: bool) -> Run | None:
    """A run that was begun in a folder; None: there is none. Blocking."""
    if not folder.exists():
        return None
    try:
        with Connection(Target(folder)) as record:
            return record.run(name)
    except NotFound:
        return None
    except StoreError:
        if not is_first:
            raise
        shutil.rmtree(folder)  # whoever made it was killed before there was a record, and nothing of it counts yet
        return None
