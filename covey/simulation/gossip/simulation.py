"""One simulated gossip run from its plan to its outcome."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from covey.coordinator.modes.gossip.machine import LATE
from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, Ledger
from covey.gossip.mass import ONE, weight
from covey.gossip.protocols.encoding import is_encoded, training_spec
from covey.gossip.protocols.runs import body_of, planner_of, policy_of, protocol_of, require_possible
from covey.gossip.push_sum.machine import PushSum
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.receipts import Overdraft, Receipt, overdrafts
from covey.metrics import counted, ratios
from covey.node.gossip.adversary import PeerAttack
from covey.node.gossip.folders import joins_with
from covey.node.gossip.ports import State
from covey.simulation.data_dir import LOG, prepared_folder
from covey.simulation.gossip.membership import Fates
from covey.simulation.gossip.models import Model, ModelFolder
from covey.simulation.gossip.network import VirtualNetwork
from covey.simulation.gossip.peer import VirtualPeer, World
from covey.simulation.gossip.plan import GossipOutcome, GossipPlan, PeerOutcome
from covey.simulation.gossip.timeline import Timeline
from covey.simulation.gossip.workers import Workers
from covey.simulation.plan import SimulationProgress, Watch, names_of
from covey.simulation.pool import LoggedSupervisor, Pool
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.mixtures import MixJob, MixResult, Portion
from covey.worker.jobs.operations import DESCRIBE, EVALUATE, INITIAL
from covey.worker.jobs.runs import DescribeJob, InitialJob, InitialResult
from covey.worker.jobs.training import TrainJob

MODELS, CHANGES, WORKERS = "models", "changes", "workers"
RUN = "gossip"
OFTEN = 100
"""How often a step of all nodes is noted: looking at all nodes for each of them would take longer than their work."""
OTHERS = ""
"""Stands for all nodes without options of the task of their own."""
MEAN = "mean.safetensors"
"""The file of the consensus model in the folder."""


async def simulate_gossip(
    plan: GossipPlan, watch: Watch = lambda progress: None, pool: Pool | None = None
) -> GossipOutcome:
    """Run a gossip simulation to its end.

    Args:
        plan: What to simulate.
        watch: Called after each step of a node.
        pool: Who works, started, for this simulation alone meanwhile; it stays the caller's. None: its own.

    Raises:
        SpecError: The plan cannot work; the message says why.
        PluginError: Something that is named is not installed.
        TaskError: The task's code failed, or training diverged.
    """
    plan.require_possible()
    require_possible(plan.spec, plan.founders, allow_path=True)
    folder = await asyncio.to_thread(prepared_folder, plan.folder, {"nodes": plan.nodes})
    simulation = GossipSimulation(plan, folder, pool)
    try:
        return await simulation.run(watch)
    finally:
        await simulation.close()


class GossipSimulation:
    """The nodes, their processes and files.

    Args:
        plan: What to simulate.
        folder: Where.
        pool: The caller's, started; None: its own.
    """

    def __init__(self, plan: GossipPlan, folder: Path, pool: Pool | None = None) -> None:
        self._plan, self._folder, self._spec_json = plan, folder, plan.spec.to_json()
        self._training_json = training_spec(plan.spec).to_json()
        count = plan.processes or len(os.sched_getaffinity(0))
        own = Pool(
            []
            if pool
            else [LoggedSupervisor(folder / WORKERS / str(k), folder / LOG, device=plan.device) for k in range(count)]
        )
        self._own, self._pool = own, pool or own
        self._workers = Workers(self._pool, count)
        self._timeline = Timeline()
        self._peers: dict[Incarnation, VirtualPeer] = {}
        self._network = VirtualNetwork(self._timeline, plan.network, plan.spec.seed, self._peers)
        self._fates = Fates(self._timeline, plan.network, self._peers, plan.spec.seed, self._joined)
        self._world: World | None = None
        self._models: dict[str, Model] = {}
        self._lives: dict[str, Incarnation] = {}
        """The newest incarnation of each node."""
        self._founders = [Incarnation(name) for name in plan.founders]
        self._places = {name: place for place, name in enumerate(names_of(plan.nodes))}
        self._watch: Watch = lambda progress: None
        self._layouts: Mapping[str, str] = {}
        self._firsts: list[Path] = []
        self._body = body_of(plan.spec, allow_path=True)
        self._begun = 0
        """Trainings."""

    async def run(self, watch: Watch) -> GossipOutcome:
        """From the first model to the outcome."""
        began, self._watch = time.monotonic(), watch
        await self._own.start()
        async with self._pool.worker() as worker:
            await worker.do(DESCRIBE, DescribeJob(self._spec_json, allow_path=True))
        firsts = {name: await self._first_model(options) for name, options in self._own_options().items()}
        self._layouts = {name: first.layout for name, (_, first) in firsts.items()}
        self._populate(firsts)
        self._fates.begin()
        for peer in list(self._peers.values()):
            peer.begin()
        await self._timeline.run(lambda: self._fates.is_over)
        return await self._outcome(began)

    async def close(self) -> None:
        """End the processes, and drop what nobody needs."""
        await self._timeline.close()
        await self._workers.close()
        await self._own.stop()
        for name in (MODELS, CHANGES, WORKERS):
            await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)

    def _own_options(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Options of the task that are a node's own, by its name; those of all others by an empty one."""
        task = self._plan.spec.task
        task.require_known(self._places)
        return {OTHERS: {}, **task.nodes}

    async def _first_model(self, own: Mapping[str, JsonValue]) -> tuple[Path, InitialResult]:
        path = self._folder / (f"first-{len(self._firsts)}.safetensors" if own else "first.safetensors")
        self._firsts.append(path)
        async with self._pool.worker() as worker:
            job = InitialJob(RUN, self._spec_json, path, allow_path=True, task_options=own, source=self._plan.model)
            return path, await worker.do(INITIAL, job)

    def _populate(self, firsts: Mapping[str, tuple[Path, InitialResult]]) -> None:
        plan = self._plan
        self._models = {name: Model(path, first.model_sha256) for name, (path, first) in firsts.items()}
        self._world = World(
            self._timeline,
            self._workers,
            planner_of(plan.spec, allow_path=True),
            ModelFolder(self._folder / MODELS),
            ModelFolder(self._folder / CHANGES),
            self._layout_of(OTHERS),
            self._spec_json,
            is_encoded(plan.spec),
            self._places,
            self._network.send,
            self._train_job,
            self._ended,
            plan.spec.seed,
            {
                name: PeerAttack(attack.name, attack.options, plan.nodes, len(plan.adversaries))
                for name, attack in plan.adversaries.items()
            },
            self._fates.watch if plan.adversaries else lambda: None,
            tuple(self._body),
            self._layouts,
        )
        for me in self._founders:
            self._peers[me] = self._peer(self._world, me, ONE, is_met=True)

    def _peer(self, world: World, me: Incarnation, minted: int, *, is_met: bool = False) -> VirtualPeer:
        """A node; the others that take part from the beginning it knows, and has heard if they have met."""
        network, model = self._plan.network, self._models.get(me.node, self._models[OTHERS])
        policy = policy_of(self._plan.spec.gossip, len(self._founders), allow_path=True)
        fresh = partial(PushSum, me, policy, self._founders, minted)
        self._lives[me.node] = me
        again = fresh if network.comes_back(me.node) else None
        return VirtualPeer(fresh(is_met=is_met), model.hold(), world, network.speeds.get(me.node, 1.0), again)

    def _joined(self, name: str) -> VirtualPeer:
        """A node that comes while others are at work: as in a coordinator's run it is its second incarnation."""
        if self._world is None:
            raise RuntimeError("nobody joins before the run has begun")
        peer = self._peer(self._world, Incarnation(name, LATE), joins_with(self._plan.spec))
        has_own = protocol_of(self._plan.spec.gossip, allow_path=True).own_models
        if peer.ledger.minted and not has_own:
            is_cut, now = self._plan.network.is_cut, self._timeline.now
            up = [each for each in self._peers.values() if each.is_up and not is_cut(each.me.node, name, now)]
            for giver in up[:1]:
                peer.take_over(giver.newest())
        return peer

    def _layout_of(self, node: str) -> str:
        return self._layouts.get(node, self._layouts[OTHERS])

    # -- work -------------------------------------------------------------------------------------------------------

    def _train_job(self, node: str, step: int, state: State[Model], files: Mapping[str, Path]) -> TrainJob:
        plan = self._plan
        self._note()
        self._fates.look(self._peers[self._lives[node]])
        return TrainJob(
            run=RUN,
            spec_json=self._training_json,
            layout=self._layout_of(node),
            round=step + 1,
            roster_index=self._places[node],
            num_partitions=plan.spec.data.parts or plan.nodes,
            base=state.model.path,
            scratch=files,
            collected=state.kept.path if state.kept is not None else None,
            task_options=plan.spec.task.nodes.get(node, {}),
            node_paths=plan.paths,
            allow_path=True,
        )

    def _note(self) -> None:
        self._begun += 1
        if self._begun % max(1, self._plan.nodes // OFTEN):
            return
        losses = [peer.labour.loss for peer in self._peers.values() if peer.labour.loss is not None]
        machines = [peer.executor.machine for peer in self._peers.values()]
        done = sum(machine.step for machine in machines)
        metrics = {"loss": math.fsum(losses) / len(losses)} if losses else {}
        whole = sum(machine.policy.steps for machine in machines)
        self._watch(SimulationProgress(self._plan.spec.mode, done, whole, 0, 0, metrics))

    def _ended(self, peer: VirtualPeer) -> None:
        if peer.reason == "left":
            self._fates.left(peer)

    @property
    def _weighs(self) -> Weighs:
        return next(iter(self._peers.values())).executor.machine.policy.weighs

    # -- the outcome ------------------------------------------------------------------------------------------------

    async def _outcome(self, began: float) -> GossipOutcome:
        honest = {me: peer for me, peer in self._peers.items() if me.node not in self._plan.adversaries}
        present = {me: peer for me, peer in honest.items() if peer.reason not in ("died", "left")}
        accounts = {me: peer.ledger for me, peer in self._peers.items() if peer.reason != "died"}
        gone = {me: self._peers[me].ledger.minted for me in self._fates.gone}
        mass = audit(accounts, gone, self._weighs)
        mass = replace(mass, named=self._named(accounts))
        own = protocol_of(self._plan.spec.gossip, allow_path=True).own_models
        mean = None if own else await self._mean(present)
        path = self._folder / MEAN
        distances = {me: (await self._distance(peer, path)) for me, peer in present.items() if mean is not None}
        evaluated = dict.fromkeys(list(present)[: self._plan.evaluated])
        metrics = {me: await self._evaluate(self._peers[me].executor.model.path, me.node) for me in evaluated}
        first = next(iter(present.values())).executor.model.path
        return GossipOutcome(
            peers=tuple(self._row(name, accounts, distances, metrics) for name in self._places),
            mass=mass,
            metrics=await self._evaluate(path) if mean is not None else {},
            model_sha256=mean.model_sha256 if mean is not None else "",
            virtual_time=self._timeline.now,
            messages=self._network.models,
            lost_messages=self._network.lost_models,
            model_bytes=sum(self._body.values()) or first.stat().st_size,
            seconds=time.monotonic() - began,
            folder=self._folder,
        )

    def _row(
        self,
        name: str,
        accounts: Mapping[Incarnation, Ledger],
        distances: Mapping[Incarnation, float],
        metrics: Mapping[Incarnation, Mapping[str, float]],
    ) -> PeerOutcome:
        if name not in self._lives:
            return PeerOutcome(name, "not joined", 0, 0.0, None, None, {}, 0.0, 0.0, 0, "")
        me = self._lives[name]
        peer = self._peers[me]
        return PeerOutcome(
            node=name,
            reason=peer.reason or peer.executor.waits_for,
            steps=peer.step,
            weight=weight(peer.ledger.live) if me in accounts else 0.0,
            loss=peer.labour.loss,
            distance=distances.get(me),
            metrics=metrics.get(me, {}),
            trained=peer.executor.hours.trained_s,
            blocked=peer.executor.hours.blocked_s,
            batches=sum(edge.sequence for edge in peer.ledger.out.values()),
            model_sha256=peer.executor.model.sha256 if peer.is_up else "",
        )

    def _named(self, accounts: Mapping[Incarnation, Ledger]) -> tuple[Overdraft, ...]:
        """Who gave away more than it can have had: what would be signed is what receivers counted."""
        given = [
            Receipt(peer, me, edge.sequence, edge.applied)
            for me, ledger in accounts.items()
            for peer, edge in ledger.into.items()
        ]
        return tuple(overdrafts(accounts, given))

    async def _mean(self, present: Mapping[Incarnation, VirtualPeer]) -> MixResult:
        """The mean of all honest final models, weighted by their mass: the consensus model."""
        whole = sum(peer.ledger.live for peer in present.values())
        portions = tuple(Portion(peer.executor.model.path, peer.ledger.live / whole) for peer in present.values())
        first = next(iter(present.values())).executor.model.path
        return await self._workers.mix(MixJob(self._layout_of(OTHERS), first, self._folder / MEAN, portions))

    async def _distance(self, peer: VirtualPeer, mean: Path) -> float:
        out = self._folder / CHANGES / "distance.safetensors"
        return (
            await self._workers.mix(
                MixJob(self._layout_of(OTHERS), peer.executor.model.path, out, (Portion(mean, 1.0),))
            )
        ).moved

    async def _evaluate(self, model: Path, node: str = OTHERS) -> Mapping[str, float]:
        job = EvaluateJob(
            run=RUN,
            spec_json=self._spec_json,
            layout=self._layout_of(node),
            model=model,
            where="central",
            allow_path=True,
            task_options=self._plan.spec.task.nodes.get(node, {}),
        )
        async with self._pool.worker() as worker:
            return counted(ratios((await worker.do(EVALUATE, job)).metrics))
