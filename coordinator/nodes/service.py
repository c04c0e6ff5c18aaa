"""What nodes say and ask: sessions, downloads, uploads. Who calls is what the certificate says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from covey import __version__
from covey import messages as msg
from covey.coordinator.nodes.adversaries import MAX_NAME, drill_event
from covey.coordinator.nodes.downloads import Downloads, permits, wrong_bytes
from covey.coordinator.nodes.enrolment import RENEWALS, EnrolmentServices, renew
from covey.coordinator.nodes.gossip import peer_address, take_statement
from covey.coordinator.nodes.last_seen import heard_at
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.said_room import room_of
from covey.coordinator.nodes.sessions import Session, Sessions
from covey.coordinator.nodes.site_logs import SiteLogDoor, SiteLogs
from covey.coordinator.nodes.upload_lanes import UploadLanes
from covey.coordinator.nodes.versions import WIRE_REFUSED, version_refusal
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.facts import MAX_METRIC_NAME, NodeProgress
from covey.coordinator.runs.offers import Offers
from covey.coordinator.store_thread import StoreThread
from covey.driver.background import Background
from covey.driver.changes import Changes
from covey.errors import IdentityError, LimitExceeded, NotFound, NotReady, VersionMismatch
from covey.machines.protocol import NodeAnswered
from covey.metrics import Totals, why
from covey.protos import coordinator_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord
from covey.wire.channels import Context, Peer, peer_identity
from covey.wire.identities.canonical import text
from covey.wire.listeners.buckets import Buckets
from covey.wire.transfers.lanes import MAX_LANES, Lane
from covey.wire.translation import from_node, to_node

log = structlog.get_logger(room="coordinator")
HEARTBEAT_S = 10.0
GREETING_S = 10.0
"""How long a session may go without its first message."""
SILENCE_S = 3 * HEARTBEAT_S
MESSAGES = (500, 200.0)
"""How many messages of one node are taken at once, and how many a second after that; in one session or in several."""
COSTS: dict[type, int] = {
    msg.Hello: 20,
    msg.UpdateOffer: 4,
    msg.Evaluation: 4,
    msg.DownloadAsk: 4,
    msg.GossipSaid: 20,
    msg.ModelReport: 4,
    msg.SiteLog: 20,
}
"""For how many messages one counts that costs more than to be read."""
SESSIONS = (30, 1.0)
"""How many sessions a node may open at once, and how many a second after that."""
NOTES = (10, 1 / 60)
"""How many events about one node are put on record because of what it says of itself; and a second after that."""
MAX_HELLOS = 20
"""Of one session: what a node says of itself changes once, when its worker has found out what it computes on."""
MAX_TEXT = 2000
PHASES = ("queued", "waiting", "downloading", "training", "uploading")


class SessionMetrics(Protocol):
    """What is counted of sessions."""

    def connected(self, node: str) -> None:
        """A node opened a session."""


@dataclass(frozen=True)
class NodeServiceInputs:
    """What the service towards nodes is given."""

    federation: str
    store: StoreThread
    files: ArtifactFiles
    sessions: Sessions
    members: Members
    runs: ActiveRuns
    offers: Offers
    enrolment: EnrolmentServices
    site_logs: SiteLogs
    metrics: SessionMetrics
    changes: Changes
    background: Background
    clock: Callable[[], float]
    """The machines'."""
    now: Callable[[], float] = time.time
    """Unix time in seconds: what certificates and the record go by."""


class CoordinatorService:
    """Serves `covey.v1.Coordinator`."""

    def __init__(self, services: NodeServiceInputs) -> None:
        self._services = services
        permit = permits(services.federation, services.enrolment.signing_key)
        self._downloads = Downloads(services.runs, services.files, services.sessions, services.background, permit)
        self._uploads = UploadLanes()
        self._site_logs = SiteLogDoor(services.site_logs, services.runs, services.store)
        self._messages, self._sessions, self._notes = Buckets(*MESSAGES), Buckets(*SESSIONS), Buckets(*NOTES)
        self._renewals = Buckets(*RENEWALS)
        """By node: whoever opens another session goes on with what is left."""

    def authorised(self, context: Context) -> Peer:
        """The calling node.

        Raises:
            IdentityError: Not a node, or as `Members.admit`.
        """
        peer = peer_identity(context)
        if peer.role != "node":
            raise IdentityError(f"{peer.name!r} is not a node")
        self._services.members.admit(peer, self._services.now())
        return peer

    # -- the session ----------------------------------------------------------------------------------------------

    async def session(
        self, requests: AsyncIterator[pb.NodeMessage], context: Context
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        """One node's long-lived stream.

        Raises:
            IdentityError: As `authorised`.
            NotReady: The node does not say hello.
            VersionMismatch: It speaks another version of the messages.
        """
        peer = self.authorised(context)
        node = peer.name
        if not self._sessions.take(node, time.monotonic()):
            raise NotReady("this node opens too many sessions; come back more slowly")
        hello = await self._greeting(node, requests)
        store = self._services.store
        if self._services.members.settles(peer):
            await store.persist(store.store.settle_node, node)
        session = self._services.sessions.open(node, peer.expires_at, peer.key_sha256)
        self._services.metrics.connected(node)
        reader = asyncio.create_task(self._read(session, _after(hello, requests)))
        try:
            federation = self._services.federation
            yield to_node(msg.Welcome(__version__, federation, node, HEARTBEAT_S, lanes=MAX_LANES))
            async for message in self._outgoing(session, reader, peer):
                yield message
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._ended(session)

    async def _greeting(self, node: str, requests: AsyncIterator[pb.NodeMessage]) -> pb.NodeMessage:
        """The first message of a session; nothing is answered before it.

        So whoever is refused here hears why at once. An older node, which knows no other way to be told, logs the words
        and comes back more and more rarely.
        """
        try:
            async with asyncio.timeout(GREETING_S):
                first = await anext(aiter(requests))
        except (TimeoutError, StopAsyncIteration):
            raise NotReady("the session began without a hello; come back") from None
        hello = from_node(first)
        if not isinstance(hello, msg.Hello):
            raise NotReady("a session begins with a hello; come back")
        if hello.wire != msg.WIRE:
            await self._refuse_version(node, hello)
        return first

    async def _outgoing(
        self, session: Session, reader: asyncio.Task[None], peer: Peer
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        expires_at = peer.expires_at
        heartbeat = pb.CoordinatorMessage(heartbeat=pb.Heartbeat())
        while not reader.done():
            try:
                async with asyncio.timeout(min(HEARTBEAT_S, max(0.0, expires_at - self._services.now()))):
                    message = await session.outbox.get()
            except TimeoutError:
                if time.monotonic() - session.heard_at > SILENCE_S:
                    log.warning("session is silent", node=session.node, seconds=SILENCE_S)
                    return
                message = heartbeat
                if (reason := self._superseded(peer)) != "":
                    log.warning("certificate superseded", node=session.node)
                    yield to_node(msg.Goodbye("superseded", reason))
                    return
            if expires_at <= self._services.now():
                log.warning("certificate expired", node=session.node)
                yield to_node(msg.Goodbye("expired", "the certificate has expired"))
                return
            if message is None:
                return
            yield message

    def _superseded(self, peer: Peer) -> str:
        """Why a session's certificate, which was good when it began, is so no more; one that expires is said apart."""
        try:
            self._services.members.admit(peer, min(self._services.now(), peer.expires_at - 1))
        except IdentityError as error:
            return str(error)
        return ""

    async def _read(self, session: Session, requests: AsyncIterator[pb.NodeMessage]) -> None:
        pace = self._messages.of(session.node, time.monotonic())
        try:
            async for message in requests:
                session.heard_at = time.monotonic()
                plain = from_node(message)
                if plain is not None:
                    await self.dispatch(session, plain)
                # What is not read is not sent: flow control makes a flood the flooder's own problem.
                wait_s = pace.take(time.monotonic(), COSTS.get(type(plain), 1))
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("session failed", node=session.node, error=repr(error))
        session.close()

    def _ended(self, session: Session) -> None:
        services, node = self._services, session.node
        if not services.sessions.forget(session):
            return
        log.info("node disconnected", node=node)
        services.offers.drop(node)
        self._downloads.drop(node)
        services.runs.lost(node, services.clock())
        services.changes.notify()
        store = services.store
        services.background.spawn(store.persist(store.store.seen, node, heard_at(session, services.now())))

    async def dispatch(self, session: Session, message: msg.NodeMessage) -> None:
        """Take one message of a node."""
        node = session.node
        match message:
            case msg.Hello():
                await self._hello(session, message)
            case msg.DownloadAsk():
                self._downloads.asked(node, message)
            case msg.UpdateOffer():
                await self._services.offers.offer(node, message)
            case msg.ModelReport():
                await self._model_reported(node, message)
            case msg.Decline():
                self._declined(node, message)
            case msg.Progress():
                self._progressed(node, message)
            case msg.Evaluation():
                await self._evaluated(node, message)
            case msg.SiteLog():
                await self._site_logs.take(node, message, self._services.now())
            case msg.GossipSaid():
                await take_statement(self._services.runs, self._services.store, self._services.sessions, node, message)

    async def _hello(self, session: Session, hello: msg.Hello) -> None:
        services, store, node = self._services, self._services.store, session.node
        if session.greeted and session.hellos >= MAX_HELLOS:
            return
        session.hellos += 1
        tasks = [task[:200] for task in hello.tasks[:1000]]
        version, device = hello.version[:50], hello.device[:200]
        await store.persist(store.store.seen, node, services.now(), version=version, device=device, tasks=tasks)
        room = room_of(hello)
        if session.greeted:
            services.runs.places.learned(node, room)
            return
        session.greeted, session.peer_address = True, peer_address(node, hello.peer_address)
        await self._note_drill(node, hello.drill[:MAX_NAME])
        log.info("node connected", node=node, version=version, device=device)
        if services.sessions.is_current(session):
            services.runs.joined(node, room, services.clock())
        services.changes.notify()

    async def _refuse_version(self, node: str, hello: msg.Hello) -> None:
        """A node whose messages are of another version is told so, and takes part in nothing."""
        reason = version_refusal(hello)
        log.warning("node refused", node=node, reason=reason)
        detail = {"node": hello.wire, "coordinator": msg.WIRE}
        await self._note(EventRecord(self._services.now(), WIRE_REFUSED, node=node, detail=detail))
        raise VersionMismatch(reason)

    async def _note_drill(self, node: str, attack: str) -> None:
        """Put on record that a node is an adversary for a drill, or is one no more."""
        services, drills = self._services, self._services.members.drills
        before = drills.pop(node, "")
        if attack:
            drills[node] = attack
            log.warning("DRILL: a node joined as an adversary", node=node, attack=attack)
        event = drill_event(node, before, attack, services.now())
        if event is not None:
            await self._note(event)

    async def _note(self, event: EventRecord) -> None:
        """Put on record what a node says of itself, unless it says so all the time."""
        if self._notes.take(event.node, time.monotonic()):
            await self._services.store.persist(self._services.store.store.add_event, event)

    async def _model_reported(self, node: str, report: msg.ModelReport) -> None:
        for liar in self._downloads.reported(node, report):
            log.warning("a node gave another one wrong bytes of a model", node=liar, by=node)
            await self._note(wrong_bytes(report.run, liar, node, self._services.now()))

    def _declined(self, node: str, decline: msg.Decline) -> None:
        run = self._services.runs.of(decline.run)
        if run is not None and run.expects(node, decline.round):
            self._services.offers.drop(node, decline.run)
            reason = f"{decline.code[:50]}: {decline.reason[:MAX_TEXT]}"
            phase = run.mode.open_phase(node)
            run.post(NodeAnswered(node, decline.round, "declined", reason, self._services.clock(), phase))

    def _progressed(self, node: str, progress: msg.Progress) -> None:
        run = self._services.runs.of(progress.run)
        if run is None:
            return
        if not run.collecting(node, progress.round):
            if progress.phase == "queued":
                run.evaluates_later(node, progress.round)
            return
        phase = progress.phase if progress.phase in PHASES else "training"
        loss = progress.loss if math.isfinite(progress.loss) else math.nan
        waits_for = progress.waits_for[:MAX_TEXT] if phase == "waiting" else ""
        run.moved(node, NodeProgress(phase, progress.step, progress.steps, loss, progress.seconds, waits_for=waits_for))

    async def _evaluated(self, node: str, evaluation: msg.Evaluation) -> None:
        run = self._services.runs.of(evaluation.run)
        if run is None:
            return
        try:
            totals = {
                text(name[:MAX_METRIC_NAME], "the name of a metric"): _metric(value)
                for name, value in list(json.loads(evaluation.metrics or b"{}").items())[:100]
            }
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, IdentityError):
            log.warning("unreadable evaluation", node=node)
            totals = {}
        await run.node_evaluated(node, evaluation.version, totals)

    # -- bulk -----------------------------------------------------------------------------------------------------

    async def download(self, request: pb.DownloadRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream the current base model from an offset."""
        node = self.authorised(context).name
        lane = Lane.checked(request.lane, request.lanes)
        async with contextlib.aclosing(self._downloads.stream(node, request.digest, request.offset, lane)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def upload(self, stream: AsyncIterator[memoryview], context: Context) -> pb.UploadReply:
        """Take one part of an offered update, or one connection's share of it."""
        node = self.authorised(context).name
        metadata = dict(context.invocation_metadata() or ())
        digest, offset = str(metadata.get("covey-digest", "")), str(metadata.get("covey-offset", "0"))
        sent = str(metadata.get("covey-sent", "0"))
        if not all(number.isascii() and number.isdigit() and len(number) <= 20 for number in (offset, sent)):
            raise NotFound("covey-offset and covey-sent must be numbers of bytes")
        lane, offers = Lane.parse(str(metadata.get("covey-lane", "0/1"))), self._services.offers
        offers.require_grant(node, digest)

        async def take(chunks: AsyncIterator[memoryview]) -> int:
            return await offers.receive(node, digest, int(offset), chunks, sent=int(sent))

        received = await self._uploads.take(node, digest, int(offset), lane, stream, take)
        return pb.UploadReply(received_bytes=received)

    async def renew(self, request: pb.RenewRequest, context: Context) -> pb.EnrolReply:
        """A new certificate for the caller."""
        peer = self.authorised(context)
        if not self._renewals.take(peer.name, time.monotonic()):
            raise LimitExceeded("this certificate was renewed several times just now; try again in a minute")
        return await renew(self._services.enrolment, peer, request)


async def _after(first: pb.NodeMessage, rest: AsyncIterator[pb.NodeMessage]) -> AsyncIterator[pb.NodeMessage]:
    yield first
    async for message in rest:
        yield message


def _metric(value: Any) -> Totals | str:
    """A metric of a node's evaluation, or why it is missing."""
    if isinstance(value, str):
        return why(value)
    total, count = map(float, value)
    is_sound = math.isfinite(total) and math.isfinite(count) and count >= 0
    return (total, count) if is_sound else why(f"it is {total:g} over {count:g}")
