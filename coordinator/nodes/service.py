"""The gRPC face towards nodes: sessions, downloads, uploads. Who calls is what the certificate says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator

import structlog

from covey import __version__, faults
from covey.artifact import Artifact
from covey.coordinator.admin.metrics import MAX_METRIC_NAME
from covey.coordinator.environment import Environment
from covey.coordinator.modes.rounds.events import NodeAnswered, NodeJoined, NodeLost
from covey.coordinator.nodes.adversaries import MAX_NAME, drill_event
from covey.coordinator.nodes.enrolment import renew
from covey.coordinator.nodes.rate_limits import Bucket
from covey.coordinator.nodes.sessions import Session
from covey.coordinator.runs.active_run import NodeState
from covey.coordinator.runs.assignments import is_small
from covey.coordinator.runs.offers import STALL_S, Intake
from covey.errors import Conflict, IdentityError, NotFound
from covey.messages import WIRE
from covey.protos import coordinator_pb2 as pb
from covey.wire.canonical import text
from covey.wire.channels import Context, Peer, peer_identity
from covey.wire.streams import serve_download

log = structlog.get_logger(room="coordinator")
HEARTBEAT_S = 10.0
SILENCE_S = 3 * HEARTBEAT_S
MESSAGES = (500, 200.0)
"""How many messages of one session are taken at once, and how many a second after that."""
MAX_TEXT = 2000
PHASES = ("downloading", "training", "uploading")


class CoordinatorService:
    """Serves `covey.v1.Coordinator`."""

    def __init__(self, env: Environment, intake: Intake) -> None:
        self._env, self._intake = env, intake
        self._downloading: set[tuple[str, str]] = set()

    def authorised(self, context: Context) -> Peer:
        """The calling node.

        Raises:
            IdentityError: Not a node, or an evicted or expired one.
        """
        peer = peer_identity(context)
        if peer.role != "node":
            raise IdentityError(f"{peer.name!r} is not a node")
        if peer.name in self._env.evicted:
            raise IdentityError(f"node {peer.name!r} was evicted")
        if peer.expires_at <= self._env.now():
            raise IdentityError(f"the certificate of {peer.name!r} has expired")
        return peer

    # -- the session ----------------------------------------------------------------------------------------------

    async def session(
        self, requests: AsyncIterator[pb.NodeMessage], context: Context
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        """One node's long-lived stream."""
        peer = self.authorised(context)
        node = peer.name
        session = self._env.sessions.open(node, peer.expires_at)
        self._env.metrics.connected(node)
        reader = asyncio.create_task(self._read(session, requests))
        try:
            yield pb.CoordinatorMessage(
                welcome=pb.Welcome(
                    version=__version__, federation=self._env.federation, node=node, heartbeat_s=HEARTBEAT_S, wire=WIRE
                )
            )
            async for message in self._outgoing(session, reader, peer.expires_at):
                yield message
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._ended(session)

    async def _outgoing(
        self, session: Session, reader: asyncio.Task[None], expires_at: float
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        heartbeat = pb.CoordinatorMessage(heartbeat=pb.Heartbeat())
        while not reader.done():
            try:
                async with asyncio.timeout(min(HEARTBEAT_S, max(0.0, expires_at - self._env.now()))):
                    message = await session.outbox.get()
            except TimeoutError:
                if time.monotonic() - session.heard_at > SILENCE_S:
                    log.warning("session is silent", node=session.node, seconds=SILENCE_S)
                    return
                message = heartbeat
            if expires_at <= self._env.now():
                log.warning("certificate expired", node=session.node)
                yield pb.CoordinatorMessage(goodbye=pb.Goodbye(code="expired", reason="the certificate has expired"))
                return
            if message is None:
                return
            yield message

    async def _read(self, session: Session, requests: AsyncIterator[pb.NodeMessage]) -> None:
        pace = Bucket(*MESSAGES, level=MESSAGES[0], at=time.monotonic())
        try:
            async for message in requests:
                session.heard_at = time.monotonic()
                await self.dispatch(session, message)
                # What is not read is not sent: flow control makes a flood the flooder's own problem.
                wait_s = pace.take(time.monotonic())
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("session failed", node=session.node, error=repr(error))
        session.close()

    def _ended(self, session: Session) -> None:
        if not self._env.sessions.forget(session):
            return
        node = session.node
        log.info("node disconnected", node=node)
        self._intake.drop(node)
        self._grant_downloads(self._env.downloads.drop(node))
        if self._env.current is not None:
            self._env.current.post(NodeLost(node, self._env.now()))
        self._env.changes.notify()
        env = self._env
        env.spawn(env.store.persist(env.store.store.seen, node, env.now()))

    async def dispatch(self, session: Session, message: pb.NodeMessage) -> None:
        """Take one message of a node."""
        node, kind = session.node, message.WhichOneof("kind")
        if kind == "hello":
            await self._hello(session, message.hello)
        elif kind == "download":
            digest = message.download.digest
            if self._served(node, digest) is None:
                return  # an old base: its work was cancelled, or will be
            if self._env.downloads.request((node, digest), node):
                self._grant_downloads([(node, digest)])
        elif kind == "offer":
            await self._intake.offer(node, message.offer)
        elif kind == "decline":
            self._declined(node, message.decline)
        elif kind == "progress":
            self._progressed(node, message.progress)
        elif kind == "evaluation":
            await self._evaluated(node, message.evaluation)

    async def _hello(self, session: Session, hello: pb.Hello) -> None:
        env, node = self._env, session.node
        tasks = [task[:200] for task in hello.tasks[:1000]]
        await env.store.persist(
            env.store.store.seen, node, env.now(), version=hello.version[:50], device=hello.device[:200], tasks=tasks
        )
        if session.greeted:
            return
        session.greeted = True
        await self._note_drill(node, hello.drill[:MAX_NAME])
        log.info("node connected", node=node, version=hello.version[:50], device=hello.device[:200])
        if env.current is not None and env.sessions.is_current(session):
            env.current.post(NodeJoined(node, env.now()))
        env.changes.notify()

    async def _note_drill(self, node: str, attack: str) -> None:
        """Put on record that a node is an adversary for a drill, or is one no more."""
        env, before = self._env, self._env.drills.pop(node, "")
        if attack:
            env.drills[node] = attack
            log.warning("DRILL: a node joined as an adversary", node=node, attack=attack)
        event = drill_event(node, before, attack, env.now())
        if event is not None:
            await env.store.persist(env.store.store.add_event, event)

    def _declined(self, node: str, decline: pb.Decline) -> None:
        runner = self._env.current
        if runner is not None and runner.run.run == decline.run and runner.expects(node, decline.round):
            self._intake.drop(node)
            reason = f"{decline.code[:50]}: {decline.reason[:MAX_TEXT]}"
            runner.post(NodeAnswered(node, decline.round, "declined", reason, self._env.now()))

    def _progressed(self, node: str, progress: pb.Progress) -> None:
        runner = self._env.current
        if runner is None or runner.run.run != progress.run or not runner.collecting(node, progress.round):
            return
        phase = progress.phase if progress.phase in PHASES else "training"
        loss = progress.loss if math.isfinite(progress.loss) else math.nan
        runner.moved(node, NodeState(phase, progress.step, progress.steps, loss, progress.seconds))

    async def _evaluated(self, node: str, evaluation: pb.Evaluation) -> None:
        runner = self._env.current
        if runner is None or runner.run.run != evaluation.run:
            return
        try:
            totals = {
                text(name[:MAX_METRIC_NAME], "the name of a metric"): (float(total), float(count))
                for name, (total, count) in list(json.loads(evaluation.metrics or b"{}").items())[:100]
            }
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, IdentityError):
            log.warning("unreadable evaluation", node=node)
            totals = {}
        finite = {name: pair for name, pair in totals.items() if all(map(math.isfinite, pair)) and pair[1] >= 0}
        await runner.node_evaluated(node, evaluation.version, finite)

    # -- bulk -----------------------------------------------------------------------------------------------------

    def _grant_downloads(self, keys: list[tuple[str, str]]) -> None:
        for node, digest in keys:
            grant = pb.CoordinatorMessage(download=pb.DownloadGrant(digest=digest))
            self._env.spawn(self._watch_download((node, digest)))
            if not self._env.sessions.send(node, grant):
                self._grant_downloads(self._env.downloads.release((node, digest)))

    async def download(self, request: pb.DownloadRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream the current base model from an offset."""
        node = self.authorised(context).name
        runner, key = self._env.current, (node, request.digest)
        try:
            artifact = self._served(node, request.digest)
            if runner is None or artifact is None:
                raise NotFound("only the base model of this node's open round can be downloaded")
            if not is_small(artifact) and not self._env.downloads.holds(key):
                raise NotFound("this download is not granted; ask for it in the session")
            if key in self._downloading:
                raise Conflict("this download is in progress already")
            self._downloading.add(key)
            try:
                path = self._env.files.path(request.digest)
                async for chunk in serve_download(path, artifact, request.offset):
                    faults.reach("download-chunk")
                    runner.sent(node, len(chunk))
                    yield chunk
            finally:
                self._downloading.discard(key)
        finally:
            if key not in self._downloading:
                self._grant_downloads(self._env.downloads.release(key))

    async def _watch_download(self, key: tuple[str, str]) -> None:
        """Take a grant back from a node that does nothing with it; a stream that stalls ends by itself."""
        await asyncio.sleep(STALL_S)
        if self._env.downloads.holds(key) and key not in self._downloading:
            self._grant_downloads(self._env.downloads.release(key))

    def _served(self, node: str, digest: str) -> Artifact | None:
        """The file of this digest, if this node may have it now."""
        return self._env.current.served(node, digest) if self._env.current is not None else None

    async def upload(self, stream: AsyncIterator[memoryview], context: Context) -> pb.UploadReply:
        """Take one part of an offered update."""
        node = self.authorised(context).name
        metadata = dict(context.invocation_metadata() or ())
        digest, offset = str(metadata.get("covey-digest", "")), str(metadata.get("covey-offset", "0"))
        if not offset.isascii() or not offset.isdigit() or len(offset) > 20:
            raise NotFound("covey-offset must be a number of bytes")
        received = await self._intake.receive(node, digest, int(offset), stream)
        return pb.UploadReply(received_bytes=received)

    async def renew(self, request: pb.RenewRequest, context: Context) -> pb.EnrolReply:
        """A new certificate for the caller."""
        return await renew(self._env, self.authorised(context).name, request)
