"""The daemon of a gossip run without a coordinator: a process around the actor, with peers, files and a worker."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from covey.errors import CoveyError, IdentityError, SpecError, StoreError
from covey.gossip.ledger import Incarnation
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import planner_of, require_possible
from covey.layout import Layout
from covey.node.gossip.actor import GossipActor, Surroundings
from covey.node.gossip.folders import Residence, reside
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.database import Durability
from covey.node.gossip.record.reader import digests_of, read_receipts, read_saved, write_first
from covey.node.gossip.work import Course
from covey.node.operator.config import IDENTITY_FOLDER, NodeConfig
from covey.node.peers.lives import Part
from covey.node.peers.network import PeerNetwork, PeerSettings
from covey.node.peers.roster import Roster
from covey.signals import told_by_signals
from covey.spec import GossipSpec
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.data_lock import held
from covey.telemetry import configure_logging
from covey.wire.identities.identity import Identity
from covey.wire.listeners.connections import allow_files
from covey.wire.mass_receipts import Notary
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import INITIAL
from covey.worker.jobs.runs import InitialJob

log = structlog.get_logger(room="gossip")
FILES = "files"


@dataclass(frozen=True)
class GossipConfig:
    """What `covey gossip start` was told.

    Attributes:
        node: The node's own settings.
        spec: The run.
        peers: The peers file.
        listen: Where peers call this node; empty: it only calls.
        relay: The relay through which peers call this node; empty: through none.
        durability: What acknowledged things survive: the end of this process, or a power cut too.
        rejoins: Whether to take part as a new incarnation where the one before is over.
        stays: Whether to answer peers on when all is done.
    """

    node: NodeConfig
    spec: GossipSpec
    peers: Path
    listen: str = ""
    durability: Durability = "process"
    rejoins: bool = False
    stays: bool = False
    relay: str = ""


def run_gossip_node(config: GossipConfig) -> int:
    """Take part until all is done, or until SIGTERM or SIGINT; the exit code: 0, or 1 where the node cannot go on."""
    configure_logging(config.node.log_format, config.node.log_level)
    os.umask(0o077)  # data, models and keys are nobody else's
    try:
        with held(config.node.data_dir, "node"):
            return asyncio.run(_main(config))
    except CoveyError as error:
        log.error("the node cannot run", code=error.code, error=str(error))
        return 1


async def _main(config: GossipConfig) -> int:
    allow_files()
    stop = asyncio.Event()
    with told_by_signals(stop.set):
        identity = Identity.load(config.node.data_dir / IDENTITY_FOLDER)
        if reason := identity.explain():
            raise IdentityError(reason)
        roster = await asyncio.to_thread(Roster.load, config.peers)
        if identity.name not in roster.members:
            raise IdentityError(f"{config.peers} does not name {identity.name!r}, which this node is")
        config.node.check_run(config.spec)
        allow_path = config.node.allows_paths(config.spec)
        require_possible(config.spec, sorted(roster.members), allow_path=allow_path)
        daemon = GossipDaemon(config, identity, roster)
        return await daemon.run(stop)


class GossipDaemon:
    """One node's process in a gossip run.

    Args:
        config: What it was told.
        identity: Its keys and certificate.
        roster: Who takes part.
    """

    def __init__(self, config: GossipConfig, identity: Identity, roster: Roster) -> None:
        self._config, self._identity, self._roster = config, identity, roster
        node = config.node
        self._worker = WorkerSupervisor(
            node.data_dir,
            device=node.device,
            log_format=node.log_format,
            stall_s=node.settings.limits.stall_s,
            log_name=f"the log of node {identity.name}",
            confinement=node.confinement,
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Take part; the exit code."""
        config, members = self._config, self._roster.members
        spec, rejoins = config.spec, config.rejoins
        home = await asyncio.to_thread(
            reside, config.node.data_dir, spec, self._identity.name, members, rejoins=rejoins
        )
        try:
            how = await self._take_part(home, stop)
        finally:
            await self._worker.stop()
            home.engine.dispose()
        log.info("stopped", how=how)
        return 1 if how in ("evicted", "retired") else 0

    async def _take_part(self, home: Residence, stop: asyncio.Event) -> str:
        if home.facts.ended == "completed" and not self._config.stays:
            log.info("all steps of this run were done before")
            return "completed"
        files = ArtifactFiles(home.folder / FILES, durable=self._config.durability == "power")
        home = await self._prepared(home, files)
        kept = await asyncio.to_thread(read_receipts, home.engine, home.facts.me)
        receipts = Receipts(home.facts.me, Notary(self._identity, home.facts.name), kept)
        actor = GossipActor(self._surroundings(home, files, receipts), stays=self._config.stays)
        network = PeerNetwork(self._settings(home, receipts), files, actor)
        try:
            await network.start()
            return await actor.run(network, stop)
        finally:
            await network.stop()

    async def _prepared(self, home: Residence, files: ArtifactFiles) -> Residence:
        """Check the files that a restart needs, and make the first model where it is not there.

        Raises:
            StoreError: A file that the record needs is damaged, or gone.
        """
        saved = await asyncio.to_thread(read_saved, home.engine)
        needed = digests_of(saved)
        first = home.facts.first
        referenced = needed | ({first.digest} if first is not None and saved.snapshot is None else set())
        await asyncio.to_thread(files.clean, referenced)
        for digest in needed:
            if not await asyncio.to_thread(files.check, digest):
                raise StoreError(
                    f"a model that the record of {home.facts.me} needs is damaged or gone ({digest[:12]}...): this "
                    f"incarnation cannot go on. Have it evicted, move {home.folder} away, and start with --rejoin"
                )
        if saved.snapshot is not None or (first is not None and await asyncio.to_thread(files.check, first.digest)):
            return home
        return await self._with_first(home, files)

    async def _with_first(self, home: Residence, files: ArtifactFiles) -> Residence:
        spec, node = self._config.spec, self._config.node
        out = files.scratch(0)
        initial = await self._worker.do(INITIAL, InitialJob(spec.name, spec.to_json(), out, node.allows_paths(spec)))
        node.check_layout(Layout.from_json(initial.layout))
        await asyncio.to_thread(files.adopt, out, initial.artifact)
        await asyncio.to_thread(write_first, home.engine, initial.layout, initial.artifact)
        return replace(home, facts=replace(home.facts, layout=initial.layout, first=initial.artifact))

    def _surroundings(self, home: Residence, files: ArtifactFiles, receipts: Receipts) -> Surroundings:
        config, facts, spec = self._config, home.facts, self._config.spec
        if facts.first is None:
            raise StoreError("the run's first model is not on record")
        names = [peer.node for peer in facts.peers]
        course = Course(spec.name, spec, facts.layout, names.index(facts.me.node), len(names), facts.first.size_bytes)
        sites = {member.name: member.site for member in self._roster.members.values() if member.site}
        planner = planner_of(spec, sites, allow_path=config.node.allows_paths(spec))
        return Surroundings(
            config.node,
            files,
            self._worker,
            planner,
            course,
            facts,
            home.engine,
            home.folder,
            receipts,
            config.durability,
        )

    def _settings(self, home: Residence, receipts: Receipts) -> PeerSettings:
        facts, config = home.facts, self._config
        if facts.first is None:
            raise StoreError("the run's first model is not on record")
        whole = facts.first.size_bytes  # also where bodies are encoded: a node that leaves sends its model as it is
        digest = hashlib.sha256(facts.spec.encode()).hexdigest()
        part = Part(facts.me, facts.name, digest, facts.minted)
        return PeerSettings(
            part,
            self._identity,
            self._roster,
            home.folder.parent,
            range(1 if is_encoded(config.spec) else whole, whole + 1),
            receipts,
            config.listen,
            _known(facts.peers, home),
            relay=config.relay,
        )


def _known(peers: tuple[Incarnation, ...], home: Residence) -> tuple[Incarnation, ...]:
    """Every incarnation that is on record."""
    saved = read_saved(home.engine)
    if saved.snapshot is None:
        return peers
    exchange = saved.snapshot.machine.exchange
    return tuple({*peers, *exchange.peers, *exchange.departed, *exchange.ledger.evicted})


def spec_of(path: Path) -> GossipSpec:
    """A run's specification.

    Raises:
        SpecError: It is not of mode gossip, or is wrong.
    """
    from covey.spec import parse_toml
    from covey.texts import read_text

    spec = parse_toml(read_text(path))
    if not isinstance(spec, GossipSpec):
        raise SpecError(f'mode: "{spec.mode}" is not gossip; write mode = "gossip"')
    return spec
