"""The virtual nodes of a simulation, and the run that they work for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from covey import __version__
from covey import messages as msg
from covey.coordinator.environment import Environment
from covey.coordinator.modes.registry import take_up
from covey.coordinator.nodes.adversaries import NEWEST, drills_on_record
from covey.coordinator.nodes.service import CoordinatorService
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.first_model import FirstModelServices, add_run
from covey.machines.protocol import StopRequested
from covey.metrics import counted
from covey.node.assignments.record.local_state import LocalStates
from covey.node.operator.config import NodeConfig, NodeData, NodeSettings
from covey.node.operator.policy import Policy
from covey.node.services import NodeServices
from covey.simulation.adversaries import Adversaries, Attack, assigned
from covey.simulation.arrival_order import Pace, Staleness
from covey.simulation.data_dir import NODES, enrol
from covey.simulation.files import CoordinatorFiles, MemoryStore, NodeFiles, lasting_states
from covey.simulation.nodes import MemoryBulk, MemoryLink, VirtualNode, VirtualSessions
from covey.simulation.pausing import Pausing
from covey.simulation.plan import Plan, SimulationProgress, Watch, names_of
from covey.simulation.pool import Pool, PooledWorker
from covey.simulation.runners import is_stalled
from covey.simulation.staying import Staying
from covey.storage.record.contract import EventRecord, RunRecord
from covey.wire.identities.identity import Identity
from covey.wire.identities.signing import SigningKey

WATCH_S = 0.2
STALLED_S = 1.0
"""So long nothing may be going on before a run is given up."""


class VirtualFederation:
    """The nodes of one simulation.

    Args:
        plan: What to simulate.
        env: The coordinator's, with `CoordinatorFiles` and `VirtualSessions`.
        attacks: The plan's, checked.
        pool: Who trains; it stays the caller's to start and to end.
    """

    def __init__(self, plan: Plan, env: Environment, attacks: Sequence[Attack], pool: Pool) -> None:
        self._plan, self._env = plan, env
        self._names = names_of(plan.nodes)
        self._adversaries = Adversaries(assigned(attacks, self._names), self._folder / "drills", self._invited)
        self._pool = pool
        self._run: ActiveRun | None = None
        self._pace = Pace(env.changes, lambda: self._run, plan.staleness or Staleness(), plan.spec.seed)
        self._pausing = Pausing(env, lambda: self._run, plan.until)
        self._service = CoordinatorService(env.node_services())
        self._nodes: dict[str, VirtualNode] = {}
        self._staying = Staying(self._folder)
        self._kept: dict[str, tuple[MemoryStore, NodeFiles]] = {}
        """What each node keeps, and where."""
        self._declined = ""
        self._states: Mapping[str, LocalStates] = {}
        """What nodes keep, where it outlives the simulation."""

    @property
    def _folder(self) -> Path:
        return self._env.config.data_dir

    def _invited(self, number: int) -> Sequence[str]:
        """Who takes part in a round; in mode `async` a round is one node's own."""
        invited: Sequence[str] = getattr(self._active().machine, "invited", ())
        return invited

    def _active(self) -> ActiveRun:
        if self._run is None:
            raise RuntimeError("no run is in progress")
        return self._run

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def _populate(self) -> None:
        env, now = self._env, self._env.now()
        (self._folder / NODES).mkdir(exist_ok=True)
        if self._plan.lasting:
            self._states = await asyncio.to_thread(lasting_states, self._folder / NODES, self._names)
        keys = {name: SigningKey.generate() for name in self._names}
        await env.store.call(enrol, env.store.store, keys, now)
        env.members.drills.update(drills_on_record(await env.store.call(env.store.store.events, limit=NEWEST)))
        env.members.keys.update({name: (key.key_id, key.public_bytes) for name, key in keys.items()})
        for name, key in keys.items():
            await self._add(name, key)
        sessions = env.sessions
        if isinstance(sessions, VirtualSessions):
            sessions.seat(self._nodes)

    async def _add(self, name: str, key: SigningKey) -> None:
        env, session = self._env, self._env.sessions.open(name)
        states = self._states.get(name)
        files = NodeFiles(self._folder / NODES, name, self._files, states.digests() if states is not None else ())
        link = MemoryLink(env, self._service, session, files, self._note_decline)
        worker = PooledWorker(name, self._pool, self._adversaries, self._pace)
        config, identity = self._config(name), self._identity(name, key)
        store = MemoryStore(states)
        store.staying = partial(self._staying.lend, node=name, files=files)
        self._kept[name] = store, files
        services = NodeServices(config, identity, link, MemoryBulk(files), files, worker, store)
        self._nodes[name] = VirtualNode(services, env, self._adversaries)
        attack = self._adversaries.attacks.get(name)
        hello = msg.Hello(__version__, config.policy.tasks, self._plan.device, attack.name if attack else "")
        await self._service.dispatch(session, hello)

    @property
    def _files(self) -> CoordinatorFiles:
        files = self._env.files
        if not isinstance(files, CoordinatorFiles):
            raise TypeError("a simulation's coordinator has files of its own")
        return files

    def _config(self, name: str) -> NodeConfig:
        spec = self._plan.spec
        paths = tuple(spec.node_paths().values())
        policy = Policy(tasks=(spec.task.name,), allow_paths=paths, label_counts="exact", representations=True, min_k=1)
        data = NodeData(paths=dict(self._plan.paths))
        return NodeConfig(self._folder / NODES, self._plan.device, settings=NodeSettings(policy=policy, data=data))

    def _identity(self, name: str, key: SigningKey) -> Identity:
        return Identity(
            name=name,
            role="node",
            federation=self._env.federation,
            server="",
            coordinator_key=self._env.signing_key.public_bytes,
            key_pem=b"",
            certificate_pem=b"",
            authority_pem=b"",
            signing_key=key,
            expires_at=float("inf"),
        )

    def _note_decline(self, reason: str) -> None:
        self._declined = reason

    # -- the run --------------------------------------------------------------------------------------------------

    async def run(self, watch: Watch, noted: Mapping[str, Any]) -> RunRecord:
        """Submit the run, or take it up again, and see to it until it has ended, or is paused; as it is recorded then.

        Args:
            watch: Called a few times a second.
            noted: Of the description, what is on record with the submission.
        """
        env, store = self._env, self._env.store
        await self._populate()
        resumed = self._plan.resumed
        record = await store.call(store.store.run, resumed) if resumed else await self._submit(noted)
        run = self._run = take_up(env.run_services, record)
        env.runs.add(run)
        work = asyncio.create_task(run.execute())
        beside = [asyncio.create_task(self._pace.run()), asyncio.create_task(self._pausing.run())]
        try:
            await self._watch(work, watch)
            if work.done():
                await work
        finally:
            for task in (work, *beside):
                task.cancel()
            await asyncio.gather(work, *beside, return_exceptions=True)
            env.runs.remove(run)
            self._run = None
        record = await store.call(store.store.run, record.run)
        if record.ended_at is not None:
            kept = {name: (store.own_state(record.run), files) for name, (store, files) in self._kept.items()}
            await asyncio.to_thread(self._staying.keep, record.run, kept)
        return record

    async def _submit(self, noted: Mapping[str, Any]) -> RunRecord:
        spec, store, now = self._plan.spec, self._env.store, self._env.now()
        record = RunRecord(secrets.token_hex(6), spec.name, spec.mode, spec.to_json(), spec.seed, "queued", "", now)
        services = FirstModelServices(
            store, self._env.files, self._env.worker, allow_paths=True, retention=self._env.retention
        )
        record, spec = await add_run(services, record, spec, self._plan.model)
        detail = {"by": "covey simulate", **noted}
        detail |= spec.model.model_dump(exclude_defaults=True)
        event = EventRecord(now, "run-submitted", record.run, detail=detail)
        await store.call(store.store.add_event, event)
        return record

    async def _watch(self, work: asyncio.Task[None], watch: Watch) -> None:
        stopping, quiet_since = False, time.monotonic()
        while not (work.done() or self._pausing.is_reached):
            await asyncio.wait([work], timeout=WATCH_S)
            watch(await self._progress())
            if any(node.busy for node in self._nodes.values()) or not self._is_stalled():
                quiet_since = time.monotonic()
            why = await self._why_stop(time.monotonic() - quiet_since)
            if why and not stopping:
                stopping = True
                self._active().post(StopRequested(why))

    def _is_stalled(self) -> bool:
        return is_stalled(self._run, self._env.background, self._env.clock())

    async def _why_stop(self, quiet_s: float) -> str:
        """Why the run cannot or shall not go on; empty if it can."""
        if self._env.operation.stop.is_set():
            return "interrupted"
        if quiet_s < STALLED_S:
            return ""
        store, run = self._env.store, self._active().run.run
        reason = (await store.call(store.store.run, run)).reason
        why = f"no node can go on ({reason})" if reason else "no node can go on"
        return f"{why}; the last refusal: {self._declined}" if self._declined else why

    async def _progress(self) -> SimulationProgress:
        machine: Any = self._active().machine
        if machine is None:
            return SimulationProgress(self._plan.spec.mode, 0, self._whole(), 0, 0, {})
        store, run = self._env.store, self._active().run.run
        metrics: Mapping[str, float] = {}
        for number in (machine.committed, machine.committed - 1):
            if number > 0 and not metrics:
                record = await store.call(store.store.version, run, number)
                metrics = counted(cast(Mapping[str, float | str], record.metrics))
        is_async = not self._plan.spec.facts.synchronous
        done = machine.decided if is_async else machine.committed
        answered, invited = (0, 0) if is_async else (len(machine.answers), len(machine.invited))
        return SimulationProgress(self._plan.spec.mode, done, self._whole(), answered, invited, metrics)

    def _whole(self) -> int:
        return self._plan.spec.rounds_in_all

    async def close(self) -> None:
        """End the nodes."""
        await asyncio.gather(*(node.stop() for node in self._nodes.values()))
