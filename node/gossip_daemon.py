"""The daemon of a gossip run without a coordinator: a process around the actor, with peers, files and a worker."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from covey.driver.ending import end
from covey.driver.steady_clock import say_jumps
from covey.errors import CoveyError, IdentityError
from covey.gossip.protocols.runs import require_possible
from covey.node.gossip.metrics import GossipMetrics, figures_of
from covey.node.gossip.record.database import Durability
from covey.node.gossip_part import GossipPart, Terms
from covey.node.gossip_peers_file import PeersFile
from covey.node.gossip_worker import worker_of
from covey.node.membership.own_certificate import OwnCertificate
from covey.node.operator.config import IDENTITY_FOLDER, NodeConfig
from covey.node.operator.health import listening
from covey.node.peers.roster import Member, Roster
from covey.node.site_log.local_log import LocalLog
from covey.signals import told_by_signals
from covey.spec import GossipSpec
from covey.storage.files.data_lock import held
from covey.telemetry import cannot_run, configure_logging, heard_by
from covey.wire.identities.identity import Identity
from covey.wire.listeners.connections import allow_files
from covey.wire.listeners.metrics_server import scrapable
from covey.worker.client.output import OnOutput, unheard

log = structlog.get_logger(room="gossip")
MEASURE_S = 1.0


@dataclass(frozen=True)
class GossipConfig:
    """What `covey gossip start` was told.

    Attributes:
        node: The node's own settings.
        spec: The run.
        peers: The peers file.
        listen: Where peers call this node; empty: it only calls.
        relay: The relay through which peers call this node; empty: through none.
        model: The file that `[model] initial` names by its digest; None: it names none.
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
    model: Path | None = None


def run_gossip_node(config: GossipConfig) -> int:
    """Take part until all is done, or until SIGTERM or SIGINT; the exit code: 0, or 1 where the node cannot go on."""
    configure_logging(config.node.log_format, config.node.log_level)
    os.umask(0o077)  # data, models and keys are nobody else's
    try:
        with held(config.node.data_dir, "node"):
            return _run(config)
    except CoveyError as error:  # another daemon is at work here, whose log it is
        return cannot_run(log, "the node", error)


def _run(config: GossipConfig) -> int:
    run = config.spec.name
    with LocalLog(config.node.data_dir, run) as local, heard_by(local.heard):
        local.named(run, run)
        try:
            return asyncio.run(_main(config, local))
        except CoveyError as error:
            return cannot_run(log, "the node", error)


async def _main(config: GossipConfig, local: LocalLog) -> int:
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
        config.node.policy.check_participants(len(roster.members))
        allow_path = config.node.allows_paths(config.spec)
        require_possible(config.spec, sorted(roster.members), allow_path=allow_path)
        return await _certified(config, identity, roster, local, stop)


async def _certified(
    config: GossipConfig, identity: Identity, roster: Roster, local: LocalLog, stop: asyncio.Event
) -> int:
    """Take part with a certificate that may be issued again meanwhile, and can be asked for health and metrics."""
    folder, metrics = config.node.data_dir / IDENTITY_FOLDER, GossipMetrics()

    def shown(newest: Identity) -> None:
        metrics.certificate_expiry.set(newest.expires_at)

    certificate = OwnCertificate(folder, identity, shown)
    shown(identity)
    daemon = GossipDaemon(config, certificate, roster, metrics, local.printed)
    services = {"peers": daemon.has_peers, "store": daemon.can_write}
    peers = PeersFile(config.peers, roster, daemon.meet)
    beside = [asyncio.create_task(work) for work in (certificate.keep(), peers.keep(), daemon.measure(), say_jumps())]
    try:
        async with (
            scrapable(metrics.registry, config.node.metrics, folder),
            listening(lambda: certificate.newest, config.node.data_dir, services, "gossip"),
        ):
            return await daemon.run(stop)
    finally:
        await end(beside)


class GossipDaemon:
    """One node's process in a gossip run.

    Args:
        config: What it was told.
        certificate: Its keys and certificate.
        roster: Who takes part.
        metrics: Is shown how the node is.
        on_output: Told what the worker prints.
    """

    def __init__(
        self,
        config: GossipConfig,
        certificate: OwnCertificate,
        roster: Roster,
        metrics: GossipMetrics,
        on_output: OnOutput = unheard,
    ) -> None:
        self._metrics, identity = metrics, certificate.newest
        restarts = metrics.worker_restarts
        self._worker = worker_of(config.node, identity.name, config.node.data_dir, restarts.inc, on_output)
        terms = Terms(
            config.node,
            config.spec,
            config.spec.name,
            config.listen,
            config.relay,
            config.durability,
            config.rejoins,
            config.stays,
            model=config.model,
        )
        self._part = GossipPart(terms, identity, roster, self._worker, lambda: certificate.newest)

    async def run(self, stop: asyncio.Event) -> int:
        """Take part; the exit code."""
        try:
            how = await self._part.run(stop)
        finally:
            await self._worker.stop()
        log.info("stopped", how=how)
        return 1 if how in ("evicted", "retired") else 0

    def meet(self, member: Member) -> None:
        """Call a peer where its address is by now."""
        if self._part.network is not None:
            self._part.network.meet(member)

    def has_peers(self) -> bool:
        """Whether there is a link to a peer, or none is needed any more."""
        actor, network = self._part.actor, self._part.network
        return network is not None and (bool(network.connected) or (actor is not None and actor.is_done))

    def can_write(self) -> bool:
        """Whether nothing is in this machine's way: room on its disk, and what else a record and files need."""
        return self._part.actor is None or not self._part.actor.obstacle

    async def measure(self) -> None:
        """Show how the node is, every second until cancelled."""
        while True:
            await asyncio.sleep(MEASURE_S)
            actor, network = self._part.actor, self._part.network
            if actor is not None and network is not None and actor.has_begun:
                links = len(network.connected), network.quality()
                self._metrics.show(figures_of(actor.executor, *links, actor.measured, actor.obstacle))
