"""One simulation from its plan to its end: a coordinator's environment, virtual nodes, and the run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from covey.coordinator.admin.operation import Operation
from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.environment import Environment
from covey.coordinator.keys.keys import open_keys
from covey.coordinator.nodes.members import Members
from covey.coordinator.runs.first_model import require_bounds
from covey.coordinator.store_thread import StoreThread
from covey.simulation.data_dir import open_relaxed, prepared_folder, remove_scratch
from covey.simulation.federation import VirtualFederation
from covey.simulation.files import CoordinatorFiles
from covey.simulation.nodes import VirtualSessions
from covey.simulation.plan import Plan, Watch, checked_attacks, require_enough
from covey.simulation.pool import Crew
from covey.simulation.ray_engine import ray_workers
from covey.storage.record.contract import RunRecord
from covey.storage.sql.tables.runs import TERMINAL
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import DESCRIBE
from covey.worker.jobs.runs import DescribeJob


async def simulate(plan: Plan, watch: Watch = lambda progress: None, crew: Crew | None = None) -> RunRecord:
    """Run a simulation to its end, or to where the plan pauses it.

    Args:
        plan: What to simulate.
        watch: Called a few times a second.
        crew: Who works, started, for this simulation alone meanwhile; it stays the caller's, and so do signals. None:
            processes of its own; SIGINT or SIGTERM stop the run then, which is recorded.

    Returns:
        The run as it is recorded then; its state says how it ended, or that it goes on.

    Raises:
        SpecError: The plan cannot work; the message says why. Nothing is recorded then.
        PluginError: Something that is named is not installed.
        CoveyError: As the coordinator's worker says of the specification.
    """
    attacks = await asyncio.to_thread(checked_attacks, plan)
    if plan.resumed:  # a killed one has left some
        await asyncio.to_thread(remove_scratch, plan.folder, nodes_too=not plan.lasting)
    facts = {"nodes": plan.nodes, "attacks": {attack.name: attack.count for attack in attacks}}
    folder = await asyncio.to_thread(prepared_folder, plan.folder, facts)
    goes_on = plan.lasting
    async with AsyncExitStack() as stack:
        stack.callback(lambda: remove_scratch(folder, nodes_too=not goes_on))
        workers = crew or await _own_crew(plan, folder, stack)
        env = await _environment(plan, folder, workers, stack)
        federation = VirtualFederation(plan, env, attacks, workers.pool)
        stack.push_async_callback(federation.close)
        if not plan.resumed:
            await env.store.call(require_bounds, env.store.store, plan.spec)
        text = plan.spec.to_json()
        job = DescribeJob(text, allow_path=True, data_paths=plan.paths, submitted=True, written=plan.written)
        description = await env.worker.do(DESCRIBE, job)
        require_enough(plan, description)
        plan.begins(plan)
        for note in description.notes:
            plan.told(note)
        with _stopping(env) if crew is None else contextlib.nullcontext():
            record = await federation.run(watch, description.noted())
        goes_on = plan.lasting and record.state not in TERMINAL
        return record


async def _own_crew(plan: Plan, folder: Path, stack: AsyncExitStack) -> Crew:
    training: Sequence[WorkerSupervisor] = ()
    if plan.ray is not None:
        training = await stack.enter_async_context(ray_workers(plan.ray, folder, plan.processes))
    count = plan.processes or len(os.sched_getaffinity(0))
    crew = Crew(folder, count, device=plan.device, training=training)
    stack.push_async_callback(crew.stop)
    await crew.start()
    return crew


async def _environment(plan: Plan, folder: Path, crew: Crew, stack: AsyncExitStack) -> Environment:
    store = StoreThread(await asyncio.to_thread(open_relaxed, folder))
    stack.push_async_callback(store.close)
    await store.call(store.store.acquire_lease, f"simulation:{os.getpid()}")
    keys = await asyncio.to_thread(open_keys, folder, time.time())
    files = CoordinatorFiles(folder / "files")
    files.clean(await store.call(store.store.referenced_digests))
    return Environment(
        config=CoordinatorConfig(folder, device=plan.device, allow_paths=True, data_paths=plan.paths),
        store=store,
        files=files,
        worker=crew.coordinator,
        authority=keys.authority,
        signing_key=keys.signing_key,
        sessions=VirtualSessions(),
        members=Members(store),
        operation=Operation(),
        keeps_deadlines=False,
        events=plan.events,
    )


@contextlib.contextmanager
def _stopping(env: Environment) -> Iterator[None]:
    """SIGINT and SIGTERM set `env.operation.stop` meanwhile; in a thread beside the main one there are no signals."""
    is_main = threading.current_thread() is threading.main_thread()
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM) if is_main else ()
    for number in numbers:
        loop.add_signal_handler(number, env.operation.stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
