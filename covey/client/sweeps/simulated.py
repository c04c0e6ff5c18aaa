"""A sweep's runs as simulations in this process: a folder for each trial and seed, which other commands can read."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey.client.connection import Connection
from covey.client.models.initial import given_file
from covey.client.specification import parsed
from covey.client.sweeps.crews import CHECK, CrewTrials
from covey.client.sweeps.curves import curve_of
from covey.client.sweeps.events import Failed, Measured
from covey.client.sweeps.machine import Work
from covey.client.target import Target
from covey.client.values import Run
from covey.errors import NotFound, PluginError, RunFailed, SpecError, StoreError
from covey.simulation.data_dir import remove_scratch
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.spec.unread import written_keys


class SimulatedTrials(CrewTrials):
    """Runs with a coordinator; a run is paused at a rung, and goes on from there, also after a kill.

    What its nodes keep between rounds goes on with it.
    """

    @override
    async def give_up(self, trial: int, rung: int) -> None:
        """It is paused at the rung, and nobody takes it up again: what its nodes keep is not needed any more."""
        for seed in self.sweep.seeds:
            await asyncio.to_thread(remove_scratch, self.folder_of(trial, seed))

    @override
    async def measure(self, work: Work) -> Measured | Failed:
        folder = self.folder_of(work.trial, work.seed)
        name = self.sweep.run_name(work.trial, work.seed, work.rung)
        is_last = self.sweep.is_population or work.rung == len(self.sweep.rungs) - 1
        async with self.crew() as crew:
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

    def _plan_of(self, work: Work, folder: Path, name: str) -> Plan:
        """Of a work's run, if nothing is on record of it. Blocking."""
        spec = self.sweep.run_spec(work.params, work.seed, name, work.rung)
        if self.sweep.is_population and work.rung:
            source = work.trial if work.source is None else work.source
            file = folder / f"begin-{work.rung}.safetensors"
            with Connection(Target(self.folder_of(source, work.seed))) as record:
                record.export(self.sweep.run_name(source, work.seed, work.rung - 1), file)
            spec["model"] = {"initial": str(file)}
        return self._plan(spec, folder)

    def _plan(self, spec: dict[str, Any], folder: Path) -> Plan:
        known = parsed(spec, later=True)
        given = given_file(known, Path())
        return Plan(
            known,
            self.machines.nodes,
            folder,
            self.machines.processes,
            paths=self.machines.paths,
            device=self.machines.device,
            written=tuple(written_keys(spec)),
            lasting=True,
            model=given.path if given is not None else None,
        )

    @override
    async def check(self, folder: Path) -> None:
        sweep = self.sweep
        is_paused = len(sweep.rungs) > 1 and not sweep.is_population
        spec = sweep.shortened(sweep.run_spec(sweep.first_params, sweep.seeds[0], CHECK), None if is_paused else 1)
        try:
            async with self.crew() as crew:
                await simulate(replace(self._plan(spec, folder), until=1 if is_paused else None), crew=crew)
            with Connection(Target(folder)) as record:
                run = record.run(CHECK)
                if run.state in ("failed", "stopped"):
                    raise RunFailed(f"it is {run.state}: {run.reason}")
                rounds = record.rounds(CHECK)
                has_versions = any(item.version for item in rounds)  # one update may make none
                if has_versions or sweep.spec.facts.synchronous:
                    curve_of(rounds, sweep.metric)
        except RunFailed as error:
            run_of_one = f"a run of one {sweep.spec.facts.unit.removesuffix('s')}"
            raise SpecError(f"{run_of_one}, with the first of all values, cannot be measured: {error}") from error


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
