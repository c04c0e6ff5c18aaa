"""Runs of a sweep that are simulated in this process: what simulates them, as many at a time as the sweep says."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from covey.client.sweeps.sweep import Sweep
from covey.client.sweeps.trials import Trials
from covey.simulation.pool import Crew

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


class CrewTrials(Trials):
    """Runs that are simulated, each by a crew of processes that it has for itself meanwhile.

    Args:
        sweep: Which.
        folder: The sweep's.
        machines: What simulates.
        is_new: Whether the sweep begins now: then it is tried first whether a run can work, and gives the metric.
    """

    def __init__(self, sweep: Sweep, folder: Path, machines: Machines, *, is_new: bool) -> None:
        super().__init__(sweep)
        self.folder, self.machines, self._is_new = folder.absolute(), machines, is_new
        self._crews = [machines.crew(self.folder / CREWS / str(number)) for number in range(self.at_once)]
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
            folder = self.folder / CHECK
            shutil.rmtree(folder, ignore_errors=True)
            try:
                await self.check(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @abstractmethod
    async def check(self, folder: Path) -> None:
        """Make a run up to its first value, with the first of all values, in a folder that is thrown away.

        Raises:
            SpecError: It cannot be measured.
        """

    @override
    async def close(self) -> None:
        await asyncio.gather(*(crew.stop() for crew in self._crews))
        shutil.rmtree(self.folder / CREWS, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def crew(self) -> AsyncIterator[Crew]:
        """The next one that is idle, for the caller alone."""
        crew = await self._idle.get()
        try:
            yield crew
        finally:
            self._idle.put_nowait(crew)

    def folder_of(self, trial: int, seed: int) -> Path:
        """Where the runs of a trial with a seed are."""
        return self.folder / RUNS / f"{trial}-{seed}"
