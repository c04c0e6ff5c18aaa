"""The node daemon: keeps a session with its coordinator and does what is assigned, one thing at a time."""

from __future__ import annotations

import asyncio
import signal

import stamina
import structlog

from covey.errors import CoveyError, IdentityError
from covey.node.assignments.executor import Bench, Work
from covey.node.assignments.journal import Journal
from covey.node.assignments.local_state import CarriedState
from covey.node.membership.enrolment import IDENTITY_FOLDER
from covey.node.membership.link import Link, node_hello
from covey.node.membership.renewal import renew_when_due
from covey.node.operator.config import NodeConfig
from covey.node.operator.health import listening
from covey.node.operator.metrics import NodeMetrics
from covey.protos import coordinator_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.telemetry import configure_logging
from covey.wire.identity import Identity
from covey.wire.metrics_server import scrapable
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import HELLO
from covey.worker.jobs.runs import HelloJob

log = structlog.get_logger(room="node")
RENEWED = -1
"""`NodeDaemon.run` ended to go on with a new certificate."""


def run_node(config: NodeConfig) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit code."""
    configure_logging(config.log_format, config.log_level)
    stamina.instrumentation.set_on_retry_hooks([])  # the link says itself what it waits for
    try:
        return asyncio.run(_main(config))
    except CoveyError as error:
        log.error("the node cannot run", code=error.code, error=str(error))
        return 1


async def _main(config: NodeConfig) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = NodeMetrics()
    if config.drill is not None:
        metrics.drill.labels(config.drill.attack).set(1)
    async with scrapable(metrics.registry, config.metrics, config.data_dir / IDENTITY_FOLDER):
        return await _until_stopped(config, metrics, stop)


async def _until_stopped(config: NodeConfig, metrics: NodeMetrics, stop: asyncio.Event) -> int:
    while True:
        identity = Identity.load(config.data_dir / IDENTITY_FOLDER)
        reason = identity.explain()
        if reason:
            raise IdentityError(reason)
        metrics.certificate_expiry.set(identity.expires_at)
        code = await _serve(NodeDaemon(config, identity, metrics), config, identity, stop)
        if code != RENEWED:
            return code


async def _serve(daemon: NodeDaemon, config: NodeConfig, identity: Identity, stop: asyncio.Event) -> int:
    async with listening(identity, config.data_dir, lambda: daemon.connected):
        return await daemon.run(stop)


class NodeDaemon:
    """One node: a link, a worker, and at most one piece of work."""

    def __init__(self, config: NodeConfig, identity: Identity, metrics: NodeMetrics) -> None:
        self._worker = WorkerSupervisor(
            config.data_dir, device=config.device, log_format=config.log_format, on_replaced=metrics.worker_restarts.inc
        )
        self._device = ""
        journal = Journal(config.data_dir / "journal")
        files = ArtifactFiles(config.data_dir / "files", durable=False)  # models can be had again
        link = Link(
            identity, config.server or identity.server, hello=self._hello, on_message=self._message, on_lost=self._lost
        )
        self._bench = Bench(
            config,
            identity,
            files,
            self._worker,
            journal,
            link,
            CarriedState(config.data_dir / "state"),
            metrics=metrics,
        )
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a session with the coordinator now."""
        return self._bench.link.up

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set, or until the coordinator ends this node's membership."""
        bench = self._bench
        if bench.config.drill is not None:
            log.warning(f"DRILL: this node is an adversary; {bench.config.drill.describe()}")
        await asyncio.to_thread(lambda: bench.files.clean(bench.journal.referenced() | bench.carried.referenced()))
        await self._worker.start()
        greeting = asyncio.create_task(self._introduce())
        link, stopped = asyncio.create_task(bench.link.run()), asyncio.create_task(stop.wait())
        folder = bench.config.data_dir / IDENTITY_FOLDER
        renewed = asyncio.create_task(renew_when_due(bench.identity, folder, bench.link.server))
        done, _ = await asyncio.wait([link, stopped, renewed], return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if link in done:
            log.error("the node stops", error=str(link.exception()))
            code = 1
        elif renewed in done:
            code = RENEWED if renewed.exception() is None else 1
            log.info("going on with a new certificate") if code == RENEWED else log.error(
                "renewal failed", error=str(renewed.exception())
            )
        log.info("stopping")
        tasks = [task for task in (link, stopped, renewed, greeting, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bench.link.close()
        await self._worker.stop()
        return code

    async def _introduce(self) -> None:
        """Say what this node computes on, once its worker has found out."""
        found = await self._worker.do(HELLO, HelloJob())
        self._device = found.device
        self._bench.link.send(pb.NodeMessage(hello=self._hello()))

    def _hello(self) -> pb.Hello:
        config = self._bench.config
        drill = config.drill.attack if config.drill is not None else ""
        return node_hello(list(config.policy.tasks), self._device or config.device, drill)

    # -- messages -------------------------------------------------------------------------------------------------

    def _message(self, message: pb.CoordinatorMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "assignment":
            self._assigned(message.assignment)
        elif kind == "welcome":
            self._bench.metrics.connected.set(1)
            self._bench.metrics.sessions.inc()
        elif kind in ("download", "upload", "receipt", "refusal"):
            if self._work is not None:
                self._work.answers.put_nowait(message)
        elif kind == "cancel":
            self._cancelled(message.cancel)

    def _assigned(self, message: pb.Assignment) -> None:
        work = Work(self._bench, message)
        if self._work is not None and self._work.key == work.key and self._task and not self._task.done():
            self._work.message = message  # the same work: a new attempt, or sent again after a reconnection
            self._work.answers.put_nowait(None)  # what it asked for before may have been overheard
            return
        self._start(work)

    def _start(self, work: Work) -> None:
        previous = self._task
        self._work = work
        self._task = asyncio.create_task(self._after(previous, work))
        # A task that is cancelled early runs nothing of the work, which could not say so itself.
        self._task.add_done_callback(lambda task: work.ended("cancelled") if task.cancelled() else None)

    async def _after(self, previous: asyncio.Task[None] | None, work: Work) -> None:
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        try:
            await work.do()
        except Exception:
            log.exception("work failed", run=work.message.run, round=work.message.round)

    def _cancelled(self, message: pb.Cancel) -> None:
        work = self._work
        if work is None or work.message.run != message.run or message.round not in (0, work.message.round):
            return
        if self._task is not None and not self._task.done():
            log.info("work cancelled", run=message.run, round=message.round, reason=message.reason)
            self._task.cancel()

    def _lost(self) -> None:
        self._bench.metrics.connected.set(0)
        if self._work is not None:
            self._work.answers.put_nowait(None)
