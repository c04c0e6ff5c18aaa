"""A whole federation in one process, for experiments."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from covey.client.connection import Connection
from covey.client.loop import LoopThread
from covey.client.models.initial import given_file
from covey.client.specification import Specification, folder_of, parsed, written_keys
from covey.client.target import Target
from covey.client.values import Contribution, Round, Run
from covey.errors import CoveyError, SpecError
from covey.simulation.adversaries import Attack
from covey.simulation.arrival_order import Staleness
from covey.simulation.plan import Plan, RayCluster, SimulationProgress, Watch
from covey.simulation.simulation import simulate as run_simulation
from covey.telemetry import quiet_by_default

__all__ = ["Attack", "Plan", "Simulated", "SimulationProgress", "Staleness", "new_folder", "run_plan", "simulate"]
R = TypeVar("R")
ENGINES = ("processes", "ray")
"""Who can train in a simulation."""


@dataclass(frozen=True)
class Simulated:
    """A simulated run that has ended, as its record has it."""

    run: Run
    rounds: tuple[Round, ...]
    seconds: float
    data_dir: Path
    """Where the record is: `connect(data_dir)` reads it."""
    contributions: tuple[Contribution, ...] = ()
    """What each node did in the run."""


def simulate(
    spec: Specification,
    nodes: int,
    *,
    data_dir: str | Path | None = None,
    processes: int | None = None,
    attacks: Sequence[Attack] = (),
    paths: Mapping[str, str] | None = None,
    staleness: Staleness | None = None,
    device: str = "cpu",
    events: str | Path | None = None,
    engine: str = "processes",
    ray_address: str | None = None,
    on_progress: Watch = lambda progress: None,
) -> Simulated:
    """Run a specification with many nodes in this process, from its main thread. SIGINT and SIGTERM stop the run.

    Where that thread runs an event loop already, as in a notebook, the work is done beside it; an interrupt of the
    kernel ends it then, and what was committed stays on record.

    Args:
        spec: As `Connection.submit`.
        nodes: How many nodes.
        data_dir: The folder for the record; default: a new temporary one.
        processes: How many train at a time; default: one for each core.
        attacks: What the last nodes do, in order.
        paths: Where the task finds the nodes' data.
        staleness: Of an asynchronous run: how many versions old updates are.
        device: What to train on: cpu, cuda or cuda:N.
        events: The folder for the log of what the run's machine was told; default: none is written.
        engine: Who trains: `processes` of this machine, or `ray`, a cluster of Ray's.
        ray_address: Of the cluster's head; default: Ray on this machine.
        on_progress: Called a few times a second.

    Raises:
        SpecError: It cannot work; the message says why. Nothing is recorded then.
        PluginError: Something that is named is not installed.
    """
    folder = Path(data_dir) if data_dir is not None else new_folder()
    logs = Path(events).absolute() if events is not None else None
    known = parsed(spec, later=True)
    given = given_file(known, folder_of(spec))
    plan = Plan(
        known,
        nodes,
        folder.absolute(),
        processes,
        attacks,
        paths or {},
        staleness,
        device,
        logs,
        written_keys(spec),
        given.path if given is not None else None,
        cluster_of(engine, ray_address),
    )
    return run_plan(plan, on_progress)


def cluster_of(engine: str, ray_address: str | None) -> RayCluster | None:
    """The cluster that trains; None: processes of this machine do.

    Raises:
        SpecError: There is no such engine, or it has no address.
    """
    if engine not in ENGINES:
        raise SpecError(f"--engine {engine}: choose one of {', '.join(ENGINES)}")
    if engine != "ray" and ray_address:
        raise SpecError("--ray-address: only --engine ray goes there")
    return RayCluster(ray_address) if engine == "ray" else None


def new_folder() -> Path:
    """A name for the folder of a simulation's record, in the temporary directory."""
    return (Path(tempfile.gettempdir()) / f"covey-simulation-{secrets.token_hex(4)}").absolute()


def run_plan(plan: Plan, on_progress: Watch) -> Simulated:
    """Run a simulation to its end. Raises as `simulate`."""
    began = time.monotonic()
    existed = plan.folder.exists()
    try:
        with quiet_by_default():
            record = played(run_simulation(plan, on_progress))
    except CoveyError:
        if not existed:  # nothing worth looking at
            shutil.rmtree(plan.folder, ignore_errors=True)
        raise
    seconds = time.monotonic() - began
    with Connection(Target(plan.folder)) as connection:
        run, rounds = connection.run(record.run), tuple(connection.rounds(record.run))
        return Simulated(run, rounds, seconds, plan.folder, tuple(connection.contributions(record.run)))


def played(work: Coroutine[Any, Any, R]) -> R:
    """Do a simulation's work: here, or beside this thread where it runs an event loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with LoopThread() as beside:
        return beside.run(work)
