"""Gossip nodes in one process: real actors, records and files; a wire in memory, a worker of a few lines of numpy."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from covey.artifact import Artifact, artifact_of_file
from covey.client import authority
from covey.client.gossip_nodes import account_of, audit_accounts, read_node
from covey.client.gossip_receipts import authority_of
from covey.errors import NotFound, TransferError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.protocols.runs import planner_of
from covey.gossip.push_sum.events import PeerSuspected, StatementsShown
from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.actor import GossipActor, Surroundings
from covey.node.gossip.folders import Residence, reside
from covey.node.gossip.ports import Clock, ModelSource, Peers, Told
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.database import Durability
from covey.node.gossip.record.reader import digests_of, read_facts, read_models, read_receipts, read_saved, write_first
from covey.node.gossip.work import Course
from covey.node.models.holders import Holders
from covey.node.operator.config import NodeConfig
from covey.node.ports import Worker
from covey.spec import GossipSpec, parse_toml
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.identities.identity import Identity
from covey.wire.mass_receipts import Notary
from covey.worker.jobs.files import WrittenFile
from covey.worker.jobs.mixtures import MixJob, MixResult
from covey.worker.jobs.operations import Operation
from covey.worker.jobs.training import TrainJob, TrainResult

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
D = 8


def spec_of(nodes: int, steps: int, **gossip: Any) -> GossipSpec:
    lines = [f"{key} = {value!r}" for key, value in gossip.items()]
    text = f'name = "unit"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\nsteps = {steps}\nmin_nodes = {nodes}\n'
    spec = parse_toml(text + "\n".join(lines))
    assert isinstance(spec, GossipSpec)
    return spec


class NumpyWorker(Worker):
    """Trains by adding the node's place to every number, and mixes files of raw float32."""

    def __init__(self) -> None:
        self.trainings = math.inf
        """How many there may be; a further one lasts for ever."""
        self.stands_still = False
        self.filters: tuple[str, ...] = ()
        """Of its site, that a training passes."""

    @override
    async def do(self, operation: Operation[J, R, P], job: J, on_progress: Callable[[P], object] | None = None) -> R:
        await asyncio.sleep(0)
        if isinstance(job, TrainJob):
            self.trainings -= 1
            if self.trainings < 0:
                self.stands_still = True
                await asyncio.Event().wait()
            return self._train(job)  # type: ignore[return-value]
        assert isinstance(job, MixJob)
        return self._mix(job)  # type: ignore[return-value]

    def _train(self, job: TrainJob) -> TrainResult:
        path = job.scratch["model"]
        np.full(D, job.roster_index, np.float32).tofile(path)
        written = WrittenFile("model", path, artifact_of_file(path))
        return TrainResult((written,), 10, 1, 0.1, {"loss": (1.0, 2)}, {}, filters=self.filters)

    def _mix(self, job: MixJob) -> MixResult:
        base = np.fromfile(job.base, np.float32)
        made = base.astype(np.float64)
        refused = []
        for position, portion in enumerate(job.portions):
            model = np.fromfile(portion.model, np.float32)
            if np.isfinite(model).all():
                made += portion.share * (model - base)
            else:
                refused.append(position)
        if job.change is not None:
            made += job.scale * np.fromfile(job.change, np.float32)
        made.astype(np.float32).tofile(job.out)
        artifact = artifact_of_file(job.out)
        return MixResult(artifact, artifact.digest, 0.0, tuple(refused))


class QuickClock(Clock):
    def now(self) -> float:
        return asyncio.get_running_loop().time()


class MemoryWire(Peers):
    """One node's end of a wire that drops some of what it is given."""

    def __init__(
        self,
        me: Incarnation,
        nodes: dict[Incarnation, UnitNode],
        loss: float = 0.0,
        drops: Callable[[Told], bool] = lambda _: False,
    ) -> None:
        self._me, self._nodes, self.loss, self._drops = me, nodes, loss, drops
        self._rng = random.Random(me.node)
        self.ways: dict[str, LinkQuality] = {}

    def _other(self, peer: Incarnation) -> UnitNode:
        node = self._nodes.get(peer)
        if node is None or self._rng.random() < self.loss:
            raise TransferError("nobody is there")
        return node

    @override
    def tell(self, peer: Incarnation, event: Told) -> None:
        try:
            actor = self._other(peer).actor
        except TransferError:
            return
        if not self._drops(event):
            asyncio.get_running_loop().call_soon(actor.heard, self._me, event)

    @override
    def quality(self) -> dict[str, LinkQuality]:
        return self.ways

    @override
    async def send(self, batch: Batch, step: int, body: Artifact) -> None:
        await asyncio.sleep(0)
        node = self._other(batch.peer)
        copy = node.files.scratch(body.size_bytes)
        try:
            shutil.copyfile(self._nodes[self._me].files.path(body.digest), copy)
        except KeyError:
            raise TransferError("this node is down") from None
        with node.holders.holding(body.digest):
            node.files.adopt(copy, body, durable=node.durability == "power")
            node.receipts.offered(self._me, batch.sequence, self._nodes[self._me].receipts.given(batch))
            await node.actor.arrived(self._me, batch.sequence, batch.units, step, body)
        signed = node.receipts.countersigned(self._me, batch.sequence)
        assert signed is not None
        if self._rng.random() < self.loss:
            raise TransferError("the answer was lost")
        if self._me in self._nodes:
            self._nodes[self._me].receipts.had(batch, signed)


class UnitNode:
    """One node: opened from its folder, as a daemon does it."""

    def __init__(
        self,
        data_dir: Path,
        spec: GossipSpec,
        me: str,
        names: list[str],
        *,
        rejoins: bool = False,
        durability: Durability = "process",
        away_s: float = 1.0,
    ) -> None:
        self.data_dir, self.spec, self.durability = data_dir, spec, durability
        home = reside(data_dir, spec, me, names, rejoins=rejoins)
        self.files = ArtifactFiles(home.folder / "files", durable=durability == "power")
        self.holders = Holders(self.files)
        saved = read_saved(home.engine)
        if home.facts.first is None:
            path = self.files.scratch(0)
            np.zeros(D, np.float32).tofile(path)
            first = artifact_of_file(path)
            self.files.adopt(path, first)
            write_first(home.engine, "{}", first)
        facts = read_facts(home.engine)
        assert facts is not None
        assert facts.first is not None
        stays = {model.digest for model, _ in read_models(home.engine).values()}
        self.files.clean(digests_of(saved) | stays | ({facts.first.digest} if saved.snapshot is None else set()))
        if any(not self.files.check(digest) for digest in digests_of(saved)):
            raise NotFound("a file that the record needs is gone")
        self.home = Residence(home.folder, home.engine, facts)
        place = [peer.node for peer in facts.peers].index(me)
        course = Course(spec.name, spec, facts.layout, place, len(names), 4 * D)
        identity = Identity.load(data_dir / "identity")
        kept = read_receipts(self.home.engine, facts.me)
        self.receipts = Receipts(facts.me, Notary(identity, spec.name), kept)
        self.worker = NumpyWorker()
        world = Surroundings(
            NodeConfig(data_dir),
            self.holders,
            self.worker,
            planner_of(spec),
            course,
            facts,
            home.engine,
            home.folder,
            self.receipts,
            durability,
            clock=QuickClock(),
            beat_s=0.02,
            farewell_s=0.2,
            away_s=away_s,
        )
        self.me, self.actor, self.stop = facts.me, GossipActor(world), asyncio.Event()
        self.wire: MemoryWire | None = None
        """Its end of the wire, while it runs."""

    async def run(
        self,
        nodes: dict[Incarnation, UnitNode],
        loss: float = 0.0,
        drops: Callable[[Told], bool] = lambda _: False,
        models: ModelSource | None = None,
    ) -> str:
        try:
            self.wire = MemoryWire(self.me, nodes, loss, drops)
            return await self.actor.run(self.wire, self.stop, models)
        finally:
            self.home.engine.dispose()
            for node in [node for who, node in nodes.items() if who != self.me]:  # as their detectors would find
                node.actor.heard(self.me, PeerSuspected(self.me, 0.0))

    @property
    def model(self) -> list[float]:
        path = self.files.path(self.actor.executor.model.digest)
        return [float(x) for x in np.fromfile(path, np.float32)]


def meet(node: UnitNode, other: UnitNode) -> None:
    """A node is shown by another one what it signed, as when a link is made."""
    numbers = node.receipts.shown_by(other.me, other.receipts.shown_to(node.me))
    node.actor.heard(other.me, StatementsShown(other.me, *numbers, 0.0))


class Unit:
    """The nodes of one run in folders of one test."""

    def __init__(self, folder: Path, spec: GossipSpec, names: str) -> None:
        self.folder, self.spec, self.names = folder, spec, list(names)
        authority.init(folder / "ca")
        for name in names:
            authority.issue(folder / "ca", name, folder / name / "identity")
        self.nodes: dict[Incarnation, UnitNode] = {}
        self.tasks: dict[str, asyncio.Task[str]] = {}

    def start(
        self,
        name: str,
        loss: float = 0.0,
        drops: Callable[[Told], bool] = lambda _: False,
        models: Callable[[UnitNode], ModelSource] | None = None,
        **options: Any,
    ) -> UnitNode:
        node = UnitNode(self.folder / name, self.spec, name, self.names, **options)
        for other in self.nodes.values():
            meet(node, other)
            meet(other, node)
        self.nodes[node.me] = node
        source = models(node) if models is not None else None
        self.tasks[name] = asyncio.create_task(node.run(self.nodes, loss, drops, source))
        return node

    def offer(self, name: str, to: UnitNode, sequence: int, given: int) -> None:
        """A node that does not run signs to have given so much in all."""
        who, identity = Incarnation(name), Identity.load(self.folder / name / "identity")
        signed = Receipts(who, Notary(identity, self.spec.name)).given(Batch(to.me, sequence, given, given))
        to.receipts.offered(who, sequence, signed)

    def down(self, name: str) -> UnitNode:
        me = max(who for who in self.nodes if who.node == name)
        return self.nodes.pop(me)

    async def stop(self, name: str) -> str:
        self.down(name).stop.set()
        return await self.tasks[name]

    async def until(self, name: str, is_so: Callable[[UnitNode], bool]) -> None:
        node = next(node for who, node in self.nodes.items() if who.node == name)
        while not is_so(node):  # noqa: ASYNC110 -- much of it happens in threads
            await asyncio.sleep(0.001)

    def audit(self, *names: str):
        folders = [self.folder / name for name in names or self.names]
        return audit_accounts([account_of(read_node(folder)) for folder in folders], authority_of(folders))


def has_come_to(step: int, node: UnitNode) -> bool:
    return step_of(node) >= step


def step_of(node: UnitNode) -> int:
    try:
        return node.actor.executor.machine.step
    except RuntimeError:
        return -1
