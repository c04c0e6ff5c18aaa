"""Ray as what trains in a simulation: actors on the machines of a cluster, each with a worker program of its own.

An actor starts the same program as a daemon does (`covey.worker`), with one thread, and hands jobs to it; so results
are the same to the bit. Jobs and results go through Ray; files do not: the folder is on a disk that all machines have.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from covey import __version__
from covey.errors import CoveyError, SpecError, WorkerDied, WorkerError, WorkerStalled, by_code
from covey.simulation.data_dir import LOG, WORKERS
from covey.simulation.plan import RayCluster
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import LivingWorker, WorkerSupervisor
from covey.worker.jobs.operations import OPERATIONS, Operation
from covey.worker.jobs.serialization import from_json, to_json

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
SIGN = "shared"
"""A file by which an actor sees that the folder is the same as here."""
START_S = 120.0
"""So long a cluster may take to give room to all actors."""


class WorkerActor:
    """What runs on a machine of the cluster."""

    def __init__(self, folder: str, name: str, sign: str, version: str) -> None:
        """Look whether work can be done here.

        Raises:
            WorkerError: It cannot; the message says what differs.
        """
        self._folder, self._name = Path(folder), name
        self._worker: Worker | None = None
        machine = os.uname().nodename
        if version != __version__:
            raise WorkerError(f"Covey {__version__} is installed on {machine}, and {version} where the simulation runs")
        try:
            is_same = (self._folder / WORKERS / SIGN).read_text() == sign
        except OSError:
            is_same = False
        if not is_same:
            raise WorkerError(f"{folder} is not the same folder on {machine}: give --data-dir on a disk that is shared")

    async def start(self) -> int:
        """Start the worker; its process id."""
        worker = self._worker = await Worker.start(self._folder / WORKERS / self._name, log_file=self._folder / LOG)
        return worker.pid

    async def do(self, name: str, fields: Any, stall_s: float) -> dict[str, Any]:
        """Have a job done: `result`, or `code` and `message` of what went wrong."""
        operation = next(row for row in OPERATIONS if row.name == name)
        if self._worker is None:
            raise RuntimeError("the worker was not started")
        try:
            result = await self._worker.do(operation, from_json(operation.job, fields), stall_s=stall_s)
        except CoveyError as error:
            return {"code": error.code, "message": str(error)}
        return {"result": to_json(result)}

    async def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            await self._worker.stop()


class RayWorker:
    """A worker behind an actor. Make it with `start`."""

    def __init__(self, ray: Any, actor: Any, pid: int) -> None:
        self._ray, self._actor, self._alive = ray, actor, True
        self.pid = pid
        """Of the program, on its machine."""

    @classmethod
    async def start(cls, ray: Any, folder: Path, name: str, sign: str) -> RayWorker:
        """Have the cluster start one.

        Raises:
            WorkerError: It cannot work there, or there is no room.
        """
        actor = ray.remote(num_cpus=1)(WorkerActor).remote(str(folder), name, sign, __version__)
        try:
            async with asyncio.timeout(START_S):
                pid = await actor.start.remote()
        except TimeoutError:
            ray.kill(actor)
            raise WorkerError(f"the Ray cluster had no room for another worker within {START_S:g} s") from None
        except ray.exceptions.RayActorError as error:
            raise WorkerError(f"a worker cannot start on the Ray cluster: {_cause(error)}") from error
        return cls(ray, actor, pid)

    @property
    def alive(self) -> bool:
        """Whether it can still be given a job, as far as is known."""
        return self._alive

    async def do(
        self,
        operation: Operation[J, R, P],
        job: J,
        on_progress: Callable[[P], object] | None = None,
        *,
        stall_s: float = math.inf,
    ) -> R:
        """As `Worker.do`; nobody hears of progress.

        Raises:
            WorkerDied: It ended, or its machine did.
            CoveyError: As `Worker.do`.
        """
        answer = self._actor.do.remote(operation.name, to_json(job), stall_s)
        try:
            fields = await answer
        except asyncio.CancelledError:
            self._ray.cancel(answer)
            raise
        except self._ray.exceptions.RayActorError as error:
            self._alive = False
            raise WorkerDied(f"a worker of the Ray cluster is gone: {_cause(error)}") from error
        if "code" in fields:
            problem = by_code().get(fields["code"], WorkerError)(fields["message"])
            self._alive = not isinstance(problem, WorkerDied | WorkerStalled)
            raise problem
        return from_json(operation.result, fields["result"])

    async def stop(self) -> None:
        """End program and actor."""
        self._alive = False
        with contextlib.suppress(self._ray.exceptions.RayError):
            await self._actor.stop.remote()
        self._ray.kill(self._actor)


class RaySupervisor(WorkerSupervisor):
    """Its worker is on a machine of the cluster; one that died is started anew, wherever there is room."""

    def __init__(self, ray: Any, folder: Path, name: str, sign: str) -> None:
        super().__init__(folder / WORKERS / name, device="cpu", log_format="console")
        self._ray, self._folder, self._name, self._sign = ray, folder, name, sign

    @override
    async def _started(self) -> LivingWorker:
        return await RayWorker.start(self._ray, self._folder, self._name, self._sign)


@asynccontextmanager
async def ray_workers(
    cluster: RayCluster, folder: Path, processes: int | None
) -> AsyncIterator[Sequence[WorkerSupervisor]]:
    """Supervisors of as many workers as were asked for, or as the cluster has processors.

    Raises:
        SpecError: The cluster cannot be reached, or is too small.
    """
    ray: Any = importlib.import_module("ray")
    is_joined = ray.is_initialized()
    if not is_joined:
        await asyncio.to_thread(_join, ray, cluster, processes)
    try:
        most = int(ray.cluster_resources().get("CPU", 0))
        if not 1 <= (count := processes or most) <= most:
            raise SpecError(f"--processes {count}: the Ray cluster has {most} processors")
        sign = secrets.token_hex(16)
        (folder / WORKERS).mkdir(exist_ok=True)
        (folder / WORKERS / SIGN).write_text(sign)
        yield [RaySupervisor(ray, folder, f"ray-{number}", sign) for number in range(count)]
    finally:
        if not is_joined:
            await asyncio.to_thread(ray.shutdown)


def _join(ray: Any, cluster: RayCluster, processes: int | None) -> None:
    own = {} if cluster.address else {"num_cpus": processes or len(os.sched_getaffinity(0)), "include_dashboard": False}
    try:
        ray.init(address=cluster.address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if cluster.address is None:
            raise SpecError(f"--engine ray: Ray does not start on this machine ({error})") from error
        raise SpecError(f"--ray-address {cluster.address}: no Ray cluster can be reached there ({error})") from error


def _cause(error: Exception) -> str:
    """What an actor's own exception says, without the trace that Ray puts around it."""
    inner = error.__cause__ or getattr(error, "cause", None) or error
    return str(inner).strip().splitlines()[-1][:300]
