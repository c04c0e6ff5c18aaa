"""One node's part in one gossip run, whole: its record, files, wire to peers, worker, and the actor between."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from covey.artifact import artifact_of_file
from covey.driver.ending import end
from covey.errors import Conflict, Obstructed, SpecError, StoreError
from covey.gossip.graph import in_neighbours
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import TOKEN
from covey.gossip.protocols.contract import Protocol
from covey.gossip.protocols.dynamics import Dynamics
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import combination_of, planner_of, protocol_of
from covey.layout import FLOAT32_BYTES, Layout
from covey.node.gossip.actor import GossipActor, Surroundings
from covey.node.gossip.adversary import PeerAttack
from covey.node.gossip.folders import Residence, joins_with, reside, run_folder
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.database import Durability
from covey.node.gossip.record.now import Teller
from covey.node.gossip.record.reader import digests_of, read_models, read_receipts, read_saved, write_first
from covey.node.gossip.work import Course
from covey.node.models.holders import Holders
from covey.node.operator.config import NodeConfig
from covey.node.peers.evicted import Evicted
from covey.node.peers.lives import Part
from covey.node.peers.network import FOLDER as NOTICES
from covey.node.peers.network import PeerNetwork, PeerSettings
from covey.node.peers.room import Quota
from covey.node.peers.roster import Roster
from covey.spec import GossipSpec
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.evictions import SignedNotice
from covey.wire.identities.identity import Identity
from covey.wire.mass_receipts import Notary
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import INITIAL
from covey.worker.jobs.runs import InitialJob

log = structlog.get_logger(room="gossip")
FILES = "files"
GIB = 1 << 30
TELL_S = 1.0
"""How often a node says for people how it is."""


@dataclass(frozen=True)
class Terms:
    """On what terms a node takes part.

    Attributes:
        node: The node's own settings.
        spec: The run.
        run: What the run is called on disk, and between nodes: its name, or what its coordinator calls it.
        listen: Where peers call this node; empty: it only calls.
        relay: The relay through which peers call this node; empty: through none.
        durability: What acknowledged things survive: the end of this process, or a power cut too.
        rejoins: Whether to take part as a new incarnation where the one before is over.
        stays: Whether to answer peers on when all is done.
        founders: With whom the run began; empty: with all that take part.
        model: The file that the specification names by its digest; None: the seed makes the first model, or `bring`
            has the file.
        bring: Brings that file from the coordinator, among the run's own; None: there is none, or it is here.
        part: Of a node that came later: its part of the data.
        first_sha256: The model_sha256 that the first model must have; empty: whatever this machine makes of the seed.
    """

    node: NodeConfig
    spec: GossipSpec
    run: str
    listen: str = ""
    relay: str = ""
    durability: Durability = "process"
    rejoins: bool = False
    stays: bool = False
    first_sha256: str = ""
    founders: tuple[str, ...] = ()
    part: int = 0
    model: Path | None = None
    bring: Callable[[ArtifactFiles], Coroutine[Any, Any, Path]] | None = None


class _Stopped(Exception):
    """The part is to end before it has a model to begin with."""


class GossipPart:
    """A node's part in a run, from opening its record to its end.

    Args:
        terms: On what terms.
        identity: The node's keys and certificate.
        roster: Who takes part.
        worker: Does what is done with tensors.
        newest: Gives the identity as it is now; None: `identity`, for good.
    """

    def __init__(
        self,
        terms: Terms,
        identity: Identity,
        roster: Roster,
        worker: WorkerSupervisor,
        newest: Callable[[], Identity] | None = None,
    ) -> None:
        self._terms, self._identity, self._roster, self._worker = terms, identity, roster, worker
        self._newest = newest
        self.actor: GossipActor | None = None
        self.network: PeerNetwork | None = None
        """The wire, while the actor is at work."""

    async def run(self, stop: asyncio.Event, notices: Collection[SignedNotice] = ()) -> str:
        """Take part until all is done, or `stop` is set; how it ended, as `GossipActor.run`.

        Args:
            stop: Ends it.
            notices: Evictions that the node was told of otherwise than by peers; looked at once the wire is open.

        Raises:
            CoveyError: The node cannot go on; the message says why.
        """
        terms, members = self._terms, self._terms.founders or self._roster.members
        if terms.rejoins:
            await asyncio.to_thread(self._require_welcome)
        place = terms.node.data_dir, terms.spec, self._identity.name, members
        try:
            home = await asyncio.to_thread(reside, *place, run=terms.run, rejoins=terms.rejoins)
        except Conflict:
            await asyncio.to_thread(self._require_welcome)  # else it would be told how to come back
            raise
        try:
            return await self._take_part(home, stop, notices)
        finally:
            home.engine.dispose()

    def _require_welcome(self) -> None:
        """Raises IdentityError where this node knows that peers take no incarnation of it any more."""
        folder = run_folder(self._terms.node.data_dir, self._terms.run) / NOTICES
        evicted = Evicted(folder, self._terms.run, self._roster.members.__contains__, self._identity.authority_pem)
        evicted.load()
        evicted.refuse_for_good(self._identity.name)

    async def _take_part(self, home: Residence, stop: asyncio.Event, notices: Collection[SignedNotice]) -> str:
        if home.facts.ended == "completed" and not self._terms.stays:
            log.info("all steps of this run were done before")
            return "completed"
        files = ArtifactFiles(home.folder / FILES, durable=self._terms.durability == "power")
        try:
            home = await self._prepared(home, files, stop)
        except _Stopped:
            return "stopped"
        kept = await asyncio.to_thread(read_receipts, home.engine, home.facts.me)
        receipts, holders = Receipts(home.facts.me, Notary(self._identity, home.facts.name), kept), Holders(files)
        actor = GossipActor(self._surroundings(home, holders, receipts), stays=self._terms.stays)
        network = PeerNetwork(self._settings(home, receipts, actor), holders, actor, holdings=actor.shelf)
        teller = Teller(home.folder, self._terms.spec.gossip.min_nodes, stays=self._terms.stays)
        telling: asyncio.Task[None] | None = None
        try:
            await network.start()
            self.actor, self.network = actor, network
            telling = asyncio.create_task(_tell(teller, actor, network))
            for notice in tuple(notices):
                with suppress(Obstructed):  # it is tried again
                    await network.hub.notified(notice, "the coordinator")
            return await actor.run(network, stop, None if self._protocol.own_models else network)
        finally:
            self.actor = self.network = None
            await end([telling] if telling is not None else [])
            await network.stop()

    async def _prepared(self, home: Residence, files: ArtifactFiles, stop: asyncio.Event) -> Residence:
        """Check the files that a restart needs, and make the first model where it is not there.

        Raises:
            StoreError: A file that the record needs is damaged, or gone.
        """
        saved = await asyncio.to_thread(read_saved, home.engine)
        needed = digests_of(saved)
        stays = {model.digest for model, _ in (await asyncio.to_thread(read_models, home.engine)).values()}
        first = home.facts.first
        referenced = needed | stays | ({first.digest} if first is not None and saved.snapshot is None else set())
        await asyncio.to_thread(files.clean, referenced)
        for digest in needed:
            if not await asyncio.to_thread(files.check, digest):
                raise StoreError(
                    f"a model that the record of {home.facts.me} needs is damaged or gone ({digest[:12]}...): this "
                    f"incarnation cannot go on. Have it evicted, move {home.folder} away, and start with --rejoin"
                )
        if saved.snapshot is not None or (first is not None and await asyncio.to_thread(files.check, first.digest)):
            return home
        return await self._with_first(home, files, stop)

    async def _with_first(self, home: Residence, files: ArtifactFiles, stop: asyncio.Event) -> Residence:
        spec, node = self._terms.spec, self._terms.node
        out = files.scratch(0)
        own = spec.task.nodes.get(self._identity.name, {})
        source = await self._source(files, stop)
        job = InitialJob(spec.name, spec.to_json(), out, node.allows_paths(spec), own, source)
        initial = await self._worker.do(INITIAL, job)
        if not own and self._terms.first_sha256 not in ("", initial.model_sha256):
            raise SpecError(
                "the task that is installed here makes another first model of the run's seed than the coordinator's: "
                "install the same version of the task, and of PyTorch"
            )
        node.check_layout(Layout.from_json(initial.layout))
        await asyncio.to_thread(files.adopt, out, initial.artifact)
        await asyncio.to_thread(write_first, home.engine, initial.layout, initial.artifact)
        return replace(home, facts=replace(home.facts, layout=initial.layout, first=initial.artifact))

    async def _source(self, files: ArtifactFiles, stop: asyncio.Event) -> Path | None:
        """The file that the specification names, if it names one; while it is on its way, `stop` counts."""
        if self._terms.bring is None:
            return await asyncio.to_thread(self._given)
        bringing, stopped = asyncio.create_task(self._terms.bring(files)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({bringing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not bringing.done():
                raise _Stopped
            return bringing.result()
        finally:
            await end([bringing, stopped])

    def _given(self) -> Path | None:
        """The file that the specification names, by its digest: peers have the same one, or another specification."""
        digest, model = self._terms.spec.model.digest, self._terms.model
        if not self._terms.spec.model.initial:
            return None
        if model is None or not digest:
            raise SpecError("model.initial: name the file itself, beside the specification, on every node")
        if artifact_of_file(model).digest != digest:
            raise SpecError(f"model.initial: {model} was changed meanwhile; start the node again")
        return model

    def _surroundings(self, home: Residence, holders: Holders[ArtifactFiles], receipts: Receipts) -> Surroundings:
        terms, facts, spec = self._terms, home.facts, self._terms.spec
        names = [peer.node for peer in facts.peers]
        model_bytes, kept_bytes = self._sizes(home)
        protocol = self._protocol
        place = names.index(facts.me.node) if facts.me.node in names else terms.part
        course = Course(
            spec.name,
            spec,
            facts.layout,
            place,
            len(names),
            model_bytes,
            kept_bytes,
            tuple(protocol.body(spec)),
            self._identity.name,
            protocol.own_models,
        )
        sites = {member.name: member.site for member in self._roster.members.values() if member.site}
        planner = planner_of(spec, sites, agreeing=names, allow_path=terms.node.allows_paths(spec))
        drill = terms.node.drill
        attack = PeerAttack(drill.attack, drill.options, course.nodes) if drill is not None else None
        if attack is not None:
            attack.require_plain(spec)
        return Surroundings(
            terms.node,
            holders,
            self._worker,
            planner,
            course,
            facts,
            home.engine,
            home.folder,
            receipts,
            terms.durability,
            attack,
        )

    @property
    def _protocol(self) -> Protocol:
        spec = self._terms.spec
        return protocol_of(spec.gossip, allow_path=self._terms.node.allows_paths(spec))

    def _sizes(self, home: Residence) -> tuple[int, int]:
        """Of each model with the vectors that travel, and of the file of what stays, in bytes."""
        terms, first, layout = self._terms, home.facts.first, Layout.from_json(home.facts.layout)
        if first is None:
            raise StoreError("the run's first model is not on record")
        dynamics = Dynamics.of(terms.spec.gossip, allow_path=terms.node.allows_paths(terms.spec))
        if dynamics.own_models:  # about: its end names what is in it
            body = sum(self._protocol.body(terms.spec).values()) or FLOAT32_BYTES * layout.part("model").numel
            return first.size_bytes, max(1, len(home.facts.peers) - 1) * body
        rows = len(dynamics.keeps)
        if dynamics.differences and is_encoded(terms.spec):
            names = [peer.node for peer in home.facts.peers]
            run = combination_of(terms.spec, names, allow_path=terms.node.allows_paths(terms.spec))
            rows += 1 + max(len(targets) for graph in run.graphs for targets in graph)
        kept_bytes = FLOAT32_BYTES * layout.part("model").numel * rows
        return first.size_bytes + layout.behind_bytes(len(dynamics.travels)), kept_bytes

    def _quota(self, home: Residence, actor: GossipActor, body_bytes: int) -> Quota:
        """What bodies of peers may take, by this node's operator.

        Raises:
            SpecError: It is less than what the node has to wait for in a step.
        """
        terms, quota_gib = self._terms, self._terms.node.peers.quota_gib
        names = [peer.node for peer in home.facts.peers]
        run = combination_of(terms.spec, names, allow_path=terms.node.allows_paths(terms.spec))
        senders = max((len(sources) for graph in run.graphs for sources in in_neighbours(graph)), default=1)
        policy = self._protocol.policy(terms.spec.gossip, len(names))
        needed = body_bytes * (max(1, senders) if policy.overlap is not None else 1)
        if quota_gib * GIB < needed:
            raise SpecError(
                f"peers.quota_gib in this node's node.toml allows {quota_gib:g} GiB for models of other nodes, and a "
                f"step of this run waits for {needed / GIB:.3g}: allow as much, or choose fewer neighbours"
            )
        saved = read_saved(home.engine)
        inbox = [*saved.snapshot.inbox.values()] if saved.snapshot is not None else []
        inbox += [body for _, body in saved.noted if body is not None]

        def is_needed(step: int) -> bool:
            return not actor.has_begun or step <= actor.executor.machine.needed

        waiting = {body.digest: body.size_bytes for body in inbox}
        kept_free_bytes, stays = 0 if policy.overlap is None else needed, actor.keeping.digests.__contains__
        return Quota(quota_gib * GIB, kept_free_bytes, is_needed, waiting, stays)

    def _settings(self, home: Residence, receipts: Receipts, actor: GossipActor) -> PeerSettings:
        facts, terms = home.facts, self._terms
        model_bytes, _ = self._sizes(home)  # also where bodies are encoded: a node that leaves sends its model as it is
        body_bytes = sum(self._protocol.body(terms.spec).values()) or model_bytes
        digest = hashlib.sha256(facts.spec.encode()).hexdigest()
        part = Part(facts.me, facts.name, digest, facts.minted, joins_with(terms.spec))
        return PeerSettings(
            part,
            self._identity,
            self._roster,
            home.folder.parent,
            range(1 if is_encoded(terms.spec) else body_bytes, body_bytes + 1),
            receipts,
            terms.listen,
            _known(facts.peers, home),
            relay=terms.relay,
            newest=self._newest,
            pause_s=terms.node.peers.pause_s,
            most=TOKEN if protocol_of(terms.spec.gossip, allow_path=True).weighs == "receiver" else 0,
            quota=self._quota(home, actor, body_bytes),
            account=lambda: actor.executor.ledger,
        )


async def _tell(teller: Teller, actor: GossipActor, network: PeerNetwork) -> None:
    """Until cancelled: say how the node is, for people."""
    try:
        while True:
            if actor.has_begun:
                links = [str(peer) for peer in network.connected]
                now = teller.seen(actor.executor, actor.under_way, links, network.troubles(), actor.obstacle)
                await asyncio.to_thread(teller.tell, now)
            await asyncio.sleep(TELL_S)
    finally:
        teller.drop()


def _known(peers: tuple[Incarnation, ...], home: Residence) -> tuple[Incarnation, ...]:
    """Every incarnation that is on record."""
    saved = read_saved(home.engine)
    if saved.snapshot is None:
        return peers
    exchange = saved.snapshot.machine.exchange
    return tuple({*peers, *exchange.peers, *exchange.departed, *exchange.ledger.evicted})
