"""The node daemon: a process around the node's actor, with gRPC, files and a worker behind its ports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import stamina
import structlog

from covey import __version__
from covey import messages as msg
from covey.driver.ending import end
from covey.driver.steady_clock import say_jumps
from covey.errors import CoveyError, IdentityError
from covey.node.actor import NodeActor
from covey.node.assignments.record.store import NodeStore
from covey.node.assignments.recording import assignments_log
from covey.node.gossip_models import GivenModels
from covey.node.gossip_runs import GossipRuns
from covey.node.membership.bulk import BulkChannels, bulk_into
from covey.node.membership.link import CoordinatorLink
from covey.node.membership.opening import keep_hours
from covey.node.membership.renewal import renew_when_due
from covey.node.operator.capacity import memory_for_runs, most_runs
from covey.node.operator.config import IDENTITY_FOLDER, NodeConfig
from covey.node.operator.health import listening
from covey.node.operator.metrics import NodeMetrics
from covey.node.peers.models.exchange import ModelExchange
from covey.node.services import NodeServices
from covey.node.site_log.local_log import LocalLog
from covey.node.site_log.site_log import SiteLog, log_name
from covey.signals import told_by_signals
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.data_lock import held
from covey.telemetry import cannot_run, configure_logging, heard_by
from covey.wire.identities.identity import Identity
from covey.wire.listeners.connections import allow_files
from covey.wire.listeners.metrics_server import scrapable
from covey.worker.client.supervisor import WorkerSupervisor, first_ended
from covey.worker.jobs.runs import HelloResult

log = structlog.get_logger(room="node")
EVENTS = "events"
RENEWED = -1
"""`NodeDaemon.run` ended to go on with a new certificate."""


def run_node(config: NodeConfig) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code."""
    configure_logging(config.log_format, config.log_level)
    os.umask(0o077)  # data, updates and keys are nobody else's
    stamina.instrumentation.set_on_retry_hooks([])  # the link says itself what it waits for
    try:
        with held(config.data_dir, "node"), LocalLog(config.data_dir) as local, heard_by(local.heard):
            return _run(config, local)
    except CoveyError as error:  # another daemon is at work here, whose log it is
        return cannot_run(log, "the node", error)


def _run(config: NodeConfig, local: LocalLog) -> int:
    try:
        return asyncio.run(_main(config, local))
    except CoveyError as error:
        return cannot_run(log, "the node", error)


async def _main(config: NodeConfig, local: LocalLog) -> int:
    allow_files()
    stop = asyncio.Event()
    with told_by_signals(stop.set):
        return await _serve_and_measure(config, local, stop)


async def _serve_and_measure(config: NodeConfig, local: LocalLog, stop: asyncio.Event) -> int:
    metrics = NodeMetrics()
    if config.drill is not None:
        metrics.drill.labels(config.drill.attack).set(1)
    async with scrapable(metrics.registry, config.metrics, config.data_dir / IDENTITY_FOLDER):
        return await _until_stopped(config, metrics, local, stop)


async def _until_stopped(config: NodeConfig, metrics: NodeMetrics, local: LocalLog, stop: asyncio.Event) -> int:
    while True:
        identity = Identity.load(config.data_dir / IDENTITY_FOLDER)
        reason = identity.explain()
        if reason:
            raise IdentityError(reason)
        metrics.certificate_expiry.set(identity.expires_at)
        code = await _serve(NodeDaemon(config, identity, metrics, local), config, identity, stop)
        if code != RENEWED:
            return code


async def _serve(daemon: NodeDaemon, config: NodeConfig, identity: Identity, stop: asyncio.Event) -> int:
    async with listening(lambda: identity, config.data_dir, {"session": lambda: daemon.connected}):
        with heard_by(daemon.heard):
            return await daemon.run(stop)


class NodeDaemon:
    """One node's process: its session, its worker, its files, and the actor that uses them."""

    def __init__(
        self, config: NodeConfig, identity: Identity, metrics: NodeMetrics, local: LocalLog | None = None
    ) -> None:
        self._config, self._identity, self._device = config, identity, config.device
        self._gpu_memory_bytes = 0
        self._peer_address = config.peers.address
        self._server = config.server or identity.server
        self._worker = WorkerSupervisor(
            config.data_dir,
            device=config.device,
            log_format=config.log_format,
            on_replaced=metrics.worker_restarts.inc,
            stall_s=config.settings.limits.stall_s,
            log_name=log_name(identity.name, config.policy.share_logs),
            confinement=config.confinement,
            on_output=lambda data: self._site_log.printed(data),
        )
        self._files = ArtifactFiles(config.data_dir / "files", durable=False)  # models can be had again
        self._store = NodeStore(config.data_dir)
        self._bulk = BulkChannels(self._server, identity, self._files)
        self._link = CoordinatorLink(
            identity, self._server, hello=self._hello, on_message=self._receive, on_lost=self._lost
        )
        recorder = assignments_log(config.data_dir / EVENTS)
        ports = self._link, self._bulk, self._files, self._worker, self._store
        self._models = ModelExchange(identity, self._files, config.peers.listen)
        self._site_log = SiteLog(self._link, config.policy.share_logs, config.scrubbed, local=local)
        services = NodeServices(
            config, identity, *ports, metrics, recorder=recorder, site_log=self._site_log, models=self._models
        )
        most_bytes = config.settings.limits.disk_gib * 2**30
        given = GivenModels(self._link, partial(bulk_into, self._server, identity), most_bytes)
        self._gossip = GossipRuns(config, identity, self._link, self._models.yield_port, given, self._site_log)
        self._actor = NodeActor(services)

    @property
    def connected(self) -> bool:
        """Whether there is a session with the coordinator now."""
        return self._link.up

    def heard(self, event: Mapping[str, Any]) -> None:
        """This process logs something; in any thread."""
        self._site_log.heard(event)

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set, or until the coordinator ends this node's membership."""
        if self._config.drill is not None:
            log.warning(f"DRILL: this node is an adversary; {self._config.drill.describe()}")
        await asyncio.to_thread(self._check_files)
        introduced = asyncio.create_task(self._introduce())
        if self._worker.may_lack_device:
            await introduced
        self._gossip.start()
        link, stopped = asyncio.create_task(self._link.run()), asyncio.create_task(stop.wait())
        folder = self._config.data_dir / IDENTITY_FOLDER
        renewed = asyncio.create_task(renew_when_due(self._identity, folder, self._server))
        works = [self._actor.report_waiting(), self._site_log.keep_sending(), say_jumps()]
        if self._config.policy.allowed_hours.are_bounded:
            works.append(keep_hours(self._config.policy.allowed_hours, self._link.come_back))
        others = [introduced, *map(asyncio.create_task, works)]
        done = await first_ended([link, stopped, renewed], introduced)
        failed = [task for task in (link, introduced) if task in done and task.exception() is not None]
        code = _exit_code(failed, renewed if renewed in done else None)
        log.info("stopping")
        await self._stop([link, stopped, renewed, *others])
        return code

    def _receive(self, message: msg.CoordinatorMessage) -> None:
        if isinstance(message, msg.Welcome):
            self._site_log.connected()
            self._bulk.most_lanes = min(message.lanes, self._config.settings.limits.connections)
        self._actor.receive(message)
        self._gossip.receive(message)

    def _lost(self) -> None:
        self._actor.lost()
        self._gossip.lost()

    def _check_files(self) -> None:
        """Before anything from before a restart is used: what is not needed goes, and so does what is damaged."""
        needed = self._store.needed()
        self._files.clean(needed)
        for digest in needed:
            self._files.check(digest)

    async def _stop(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        await asyncio.gather(end(tasks), self._actor.stop(), self._gossip.stop(), return_exceptions=True)
        await self._models.close()
        await self._link.close()
        await self._bulk.close()
        await self._worker.stop()

    async def _introduce(self) -> HelloResult:
        """Say what this node computes on, once its worker has found out.

        Raises:
            WorkerError: It cannot compute.
        """
        hello = await self._worker.ready()
        self._device, self._gpu_memory_bytes = hello.device, hello.gpu_memory_bytes
        self._link.send(self._hello())
        return hello

    def _hello(self) -> msg.Hello:
        drill = self._config.drill.attack if self._config.drill is not None else ""
        config = self._config
        return msg.Hello(
            __version__,
            config.policy.tasks,
            self._device,
            drill,
            peer_address=self._peer_address,
            max_runs=most_runs(config),
            memory_bytes=memory_for_runs(config),
            gpu_memory_bytes=self._gpu_memory_bytes,
        )


def _exit_code(failed: Sequence[asyncio.Task[Any]], renewed: asyncio.Task[None] | None) -> int:
    """How the daemon ends, by which of its tasks have ended by themselves."""
    if failed:
        log.error("the node stops", error=str(failed[0].exception()))
        return 1
    if renewed is None:
        return 0
    if renewed.exception() is not None:
        log.error("renewal failed", error=str(renewed.exception()))
        return 1
    log.info("going on with a new certificate")
    return RENEWED
