"""The wire between this node and its peers, assembled: what a gossip run's executor is given as its `Peers`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import structlog

from covey.artifact import Artifact
from covey.driver.background import Background
from covey.driver.ending import end
from covey.errors import Conflict, IdentityError, TransferError
from covey.gossip.ledger import Batch, Incarnation, Ledger
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import PeerLeft, Progressed
from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.ports import Receiver, Told
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.leavers import FOLDER as LEAVERS
from covey.node.gossip.record.leavers import Leavers
from covey.node.gossip.record.proofs import FOLDER as PROOFS
from covey.node.gossip.record.proofs import Proofs
from covey.node.models.holders import Holders
from covey.node.models.newest import JoinedModel, bring_newest
from covey.node.models.sources import Candidate
from covey.node.peers.calls import PeerCalls
from covey.node.peers.deliveries import Deliveries
from covey.node.peers.dialer import Dialer, patience_s
from covey.node.peers.evicted import Evicted
from covey.node.peers.forwarder import Forwarder
from covey.node.peers.hub import Hub
from covey.node.peers.links import REPLACED, STOPPING
from covey.node.peers.lives import Lives, Part
from covey.node.peers.ports import Files, Holdings
from covey.node.peers.receptions import Receptions
from covey.node.peers.room import Quota, Room
from covey.node.peers.roster import Member, Roster
from covey.node.peers.service import PeerService, peer_handler
from covey.node.peers.speeds import Speeds
from covey.node.peers.vitals import BEAT_S, Vitals
from covey.wire.channels import Context, listen, renewing_credentials, server_options
from covey.wire.identities.identity import Identity
from covey.wire.listeners.call_limits import Allowance, Caller, CallLimits
from covey.wire.listeners.connections import Connections, allow_many_files, keep_bounded
from covey.wire.listeners.guard import Guard

log = structlog.get_logger(room="peers")
ALLOWED = {
    # A link, its beats, a body each way; and as much again while a connection is replaced.
    "node": Allowance(each=8, total=2048, begin=(200, 50.0)),
    "admin": Allowance(each=4, total=32),
    "coordinator": Allowance(each=4, total=4),
}
MOST_CALLS = 2560
"""Of the listener, refused ones that are just ending among them."""
MAX_CONNECTIONS = 1024
"""So many may one address have."""
GRACE_S = 0.5
FOLDER = "evictions"
LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class PeerSettings:
    """What a node's wire to its peers is made of.

    Attributes:
        part: This node's part in the run.
        identity: Its keys and certificate.
        roster: Who takes part.
        data_dir: Where notices of eviction are kept.
        body_bytes: The sizes that bodies of this run may have.
        receipts: What nodes sign to each other about their mass.
        listen: Where this node is called, `HOST:PORT`; empty: nowhere, it only calls.
        known: Incarnations that are on record here.
        beat_s: How often each side of a link says something.
        relay: The relay through which it is called, `HOST:PORT`; empty: through none.
        newest: Gives the identity as it is now; None: `identity`, for good.
        pause_s: How long a peer's pause is borne, before its silence is judged; None: three beats.
        most: The most units that one batch may have; 0: all that were ever minted.
        quota: What bodies of peers may take here.
        account: This node's, for its farewell; None: it signs none.
    """

    part: Part
    identity: Identity
    roster: Roster
    data_dir: Path
    body_bytes: range
    receipts: Receipts
    listen: str = ""
    known: tuple[Incarnation, ...] = ()
    beat_s: float = BEAT_S
    relay: str = ""
    newest: Callable[[], Identity] | None = None
    pause_s: float | None = None
    most: int = 0
    quota: Quota = field(default_factory=Quota)
    account: Callable[[], Ledger] | None = None

    def shown(self) -> Identity:
        """What a connection that is made now shows."""
        return self.newest() if self.newest is not None else self.identity


class PeerNetwork:
    """This node's links, and what goes over them.

    Args:
        settings: What it is made of.
        holders: Of the node's files: bodies are sent from there, and come there.
        receiver: Is given what comes.
        clock: Seconds that do not go back: those of events.
        holdings: The models that peers may have; None: none.
    """

    def __init__(
        self,
        settings: PeerSettings,
        holders: Holders[Files],
        receiver: Receiver,
        clock: Callable[[], float] = time.monotonic,
        holdings: Holdings | None = None,
    ) -> None:
        self._settings, self._holders, self._holdings = settings, holders, holdings
        self._files = files = holders.files
        roster, part = settings.roster, settings.part
        self._evicted = Evicted(
            settings.data_dir / FOLDER, part.run, roster.members.__contains__, settings.identity.authority_pem
        )
        self._background, self._connections = Background(), Connections()
        lives = Lives([*settings.known, part.me], self._evicted)

        def is_known(who: Incarnation) -> bool:
            return who.node in roster.members and who.number <= lives.of(who.node).number

        def most() -> int:
            return settings.most or ONE * sum(lives.of(name).number for name in roster.members)

        self._proofs = Proofs(settings.data_dir / PROOFS, settings.receipts.open_given, is_known, most)
        vitals, receipts = Vitals(settings.beat_s, settings.pause_s), settings.receipts

        def is_present(who: Incarnation) -> bool:
            return who.node in roster.members and who == lives.of(who.node) and who not in self._evicted

        self._leavers = Leavers(settings.data_dir / LEAVERS, receipts.open_left, is_present)
        known = self._proofs, self._leavers
        self.hub = Hub(part, lives, self._evicted, vitals, receiver, self._background, receipts, *known, clock)
        self._speeds = Speeds()
        self.deliveries = Deliveries(self.hub.links, files, self._push, self._background, receipts)
        self.receptions = Receptions(
            holders,
            receiver,
            self._fetch,
            self._background,
            settings.body_bytes,
            receipts,
            self.hub.refused,
            room=Room(files, settings.quota),
        )
        self.hub.carry(self)
        self._met: dict[str, Member] = {}
        self._calls: dict[str, PeerCalls] = {}
        self._dialers: dict[str, Dialer] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        self._server: grpc.aio.Server | None = None

    # -- the port ---------------------------------------------------------------------------------------------------

    def tell(self, peer: Incarnation, event: Told) -> None:
        """Say something small; without a connection it is dropped."""
        if isinstance(event, Progressed):
            self.receptions.has_up_to(peer, event.applied)
        if isinstance(event, PeerLeft) and self._settings.account is not None:
            self.hub.leave(self._settings.account())
        self.hub.say(peer, event)

    async def send(self, batch: Batch, step: int, body: Artifact) -> None:
        """Bring one whole batch over, from where it broke before; ends when the peer has it durably.

        Raises:
            TransferError: It broke off, or there is no connection; sent again, it goes on.
            LedgerError: The peer refuses this batch.
        """
        began = time.monotonic()
        await self.deliveries.send(batch, step, body)
        self._speeds.sent(batch.peer.node, body.size_bytes, time.monotonic() - began)

    def quality(self) -> dict[str, LinkQuality]:
        """What was measured of the way to each peer, by name; only where both figures are known."""
        vitals = self.hub.vitals
        trips = {name: vitals.round_trip_s(name) for name in self._settings.roster.members}
        return {
            name: LinkQuality(speed, trips[name]) for name, speed in self._speeds.known() if trips.get(name, 0.0) > 0
        }

    @property
    def connected(self) -> list[Incarnation]:
        """Peers that there is a link to now."""
        return sorted(link.peer for link in self.hub.links)

    def troubles(self) -> dict[str, str]:
        """By peer that there is no link to, though it takes part: why it could not be called."""
        links, is_out, dialers = self.hub.links, self.hub.lives.is_out, self._dialers.items()
        troubles = {name: dialer.trouble for name, dialer in dialers if dialer.trouble and not is_out(name)}
        return {name: trouble for name, trouble in troubles.items() if links.named(name) is None}

    # -- bodies -----------------------------------------------------------------------------------------------------

    async def _push(self, name: str, body: Artifact, offset: int, moved: Callable[[int], None]) -> None:
        await self._to(name).push(self._files.path(body.digest), body, offset, moved)

    async def _fetch(self, name: str, body: Artifact, moved: Callable[[int], None]) -> None:
        await self._to(name).fetch(body, self._files, moved)

    def _to(self, name: str) -> PeerCalls:
        calls = self._calls.get(name)
        if calls is None:
            raise TransferError(f"{name} has no address in the peers file: it cannot be called")
        return calls

    # -- models -----------------------------------------------------------------------------------------------------

    async def newest(self, source: str) -> tuple[Artifact, int]:
        """As `covey.node.models.newest.ModelCalls`."""
        return await self._to(source).newest()

    async def ask(self, source: str, artifact: Artifact, first: int, count: int) -> AsyncGenerator[memoryview, None]:
        """As `covey.node.models.assembly.AskChunks`."""
        async for chunk in self._to(source).chunks(artifact.digest, first, count):
            yield chunk

    async def bring_model(self) -> JoinedModel:
        """A peer's newest model, from all peers that can be called. Raises as `bring_newest`."""
        speeds, trip_s = dict(self._speeds.known()), self.hub.vitals.round_trip_s
        linked = [name for name in self._calls if self.hub.links.named(name) is not None]
        candidates = [Candidate(name, speeds.get(name, 0.0), trip_s(name)) for name in linked]
        return await bring_newest(candidates, self, self._holders, self._settings.body_bytes[-1:])

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen, and call peers; where this node is called (empty: nowhere).

        The receiver is told first of all evictions that are on disk: it may have ended before it had them on record.

        Raises:
            IdentityError: The peers file does not name this node, or its own certificate does not count.
            CoveyError: The address cannot be had, or is another node's.
        """
        settings, me = self._settings, self._settings.part.me.node
        own = settings.roster.members.get(me)
        if own is None or settings.identity.name != me:
            raise IdentityError(f"the peers file has no node {settings.identity.name!r}, which this one is")
        self._require_own_place(own)
        await asyncio.to_thread(self._evicted.load)
        await asyncio.to_thread(self._proofs.load)
        await asyncio.to_thread(self._leavers.load)
        self.hub.recall()
        address = await self._listen(settings.listen or LOOPBACK) if settings.listen or settings.relay else ""
        if settings.relay:
            self._spawn(Forwarder(settings.relay, settings.shown, address).run())
        for member in settings.roster.members.values():
            self.meet(member)
        self._spawn(self.hub.watch())
        return address

    def _require_own_place(self, own: Member) -> None:
        """Raises Conflict where another node is called at the address at which this one is to listen."""
        listen, members = self._settings.listen, self._settings.roster.members.values()
        others = [member.name for member in members if member is not own and member.address == listen]
        if listen and listen != own.address and others:
            text = f"at {listen}, where {own.name} is to listen, peers call {', '.join(others)}"
            raise Conflict(f"{text}; {own.name} is called at {own.address or 'no address'}")

    def meet(self, member: Member) -> None:
        """Call a node of the roster again and again, if it can be called.

        One that has another address or key than it had is called there from now on, and the link to it is made anew:
        the others keep theirs.
        """
        settings, me = self._settings, self._settings.part.me.node
        can_be_called = settings.listen or settings.relay
        wait_s = patience_s(Member(me, can_be_called), member)
        if member.name == me or member == self._met.get(member.name):
            return
        if member.name in self._met:
            self._let_go(member.name)
        self._met[member.name] = member
        if wait_s is not None:
            calls = self._calls[member.name] = PeerCalls(member, settings.shown, self.hub)
            dialer = self._dialers[member.name] = Dialer(calls, self.hub, wait_s)
            self._dialling[member.name] = asyncio.create_task(dialer.run())
        elif not can_be_called:
            log.warning("neither can be called: one of both needs an open port, or a relay", peer=member.name)

    def _let_go(self, name: str) -> None:
        """Call a node no more where it was, and end the link to it."""
        if (link := self.hub.links.named(name)) is not None:
            link.close(REPLACED, "this node has another address, or key")
            self.hub.closed(link)
        self._dialers.pop(name, None)
        calls, dialling = self._calls.pop(name, None), self._dialling.pop(name, None)
        if calls is not None and dialling is not None:
            self._background.spawn(_ended(calls, dialling))

    async def _listen(self, where: str) -> str:
        allow_many_files()
        service = PeerService(self.hub, self._settings.roster, self._holdings)

        def who(context: Context) -> Caller:
            peer = service.caller(context)
            return Caller(peer.role, peer.name)

        guard = Guard(who, CallLimits(ALLOWED), self._connections)
        server = grpc.aio.server(options=server_options(), interceptors=[guard], maximum_concurrent_rpcs=MOST_CALLS)
        server.add_generic_rpc_handlers((peer_handler(service),))
        credentials = renewing_credentials(self._settings.shown, mutual=True)
        port = listen(server, where, credentials, "--listen")
        await server.start()
        self._server = server
        self._spawn(keep_bounded({port: MAX_CONNECTIONS}))
        address = f"{where.rpartition(':')[0]}:{port}"
        log.info("ready for peers", listen=address)
        return address

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """End everything; repeatable."""
        await self.hub.part_with(STOPPING, "this node stops")
        tasks, self._tasks = [*self._tasks, *self._dialling.values()], []
        await end(tasks)
        for calls in self._calls.values():
            await calls.close()
        if self._server is not None:
            await self._server.stop(GRACE_S)
            self._server = None


async def _ended(calls: PeerCalls, dialling: asyncio.Task[None]) -> None:
    """End calling a peer, and close its connections."""
    await end([dialling])
    await calls.close()


def peers_of(roster: Roster, me: str, evicted: Iterable[Incarnation] = ()) -> tuple[Incarnation, ...]:
    """The first incarnations of all other nodes of a run, without those that are out."""
    out = set(evicted)
    return tuple(who for name in roster.members if name != me and (who := Incarnation(name)) not in out)
