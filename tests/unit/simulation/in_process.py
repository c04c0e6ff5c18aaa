"""Simulations whose workers are this process: the operations of the worker's program, without starting one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from covey.simulation.pool import Crew, Pool
from covey.worker.program.host import Host
from covey.worker.program.loop import function_of


class Here:
    """In place of a supervisor and its worker."""

    def __init__(self, data_dir: Path, log_file: Path, *, device: str) -> None:
        self._host = Host(torch.device(device))

    async def start(self) -> None:
        """Nothing is to be started."""

    async def stop(self) -> None:
        """Nothing is to be ended."""

    async def do(self, operation: Any, job: Any) -> Any:
        return function_of(operation)(job, self._host)


class CrewHere(Crew):
    """A simulation's workers, all in this process."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.coordinator: Any = Here(folder, folder, device="cpu")
        workers: Any = [Here(folder, folder, device="cpu")]
        self.pool = Pool(workers)


def work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let simulations of gossip do all work in this process."""
    monkeypatch.setattr("covey.simulation.gossip.simulation.LoggedSupervisor", Here)
