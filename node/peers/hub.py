"""What becomes of all that passes between this node and its peers: links, messages, beats, notices. Knows no gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from functools import partial
from typing import Protocol

import structlog

from covey.driver.background import Background
from covey.driver.ending import end
from covey.errors import CoveyError, Obstructed
from covey.gossip.ledger import Incarnation, Ledger
from covey.gossip.push_sum.events import PeerEvicted, PeerJoined, PeerLeft, PeerSuspected, PeerTrusted, StatementsShown
from covey.gossip.receipts import Proof, SignedMass
from covey.node.gossip.obstacles import Obstacles
from covey.node.gossip.ports import Receiver, Told
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.leavers import Leavers
from covey.node.gossip.record.proofs import Proofs
from covey.node.peers.deliveries import Deliveries
from covey.node.peers.evicted import Evicted
from covey.node.peers.links import EVICTED, SILENT, Link, Links
from covey.node.peers.lives import Lives, Part
from covey.node.peers.receptions import Receptions
from covey.node.peers.translation import (
    Hello,
    beat_from,
    beat_message,
    eviction_from,
    eviction_message,
    farewell_message,
    hello_message,
    mass_from,
    proof_from,
    proof_message,
    said_from,
    said_message,
    shown_from,
    shown_message,
)
from covey.node.peers.vitals import Vitals
from covey.protos import peer_pb2 as pb
from covey.texts import printable
from covey.wire.evictions import EvictionStatement, SignedNotice
from covey.wire.identities.leaver_statement import LeaverStatement
from covey.wire.listeners.buckets import Buckets

log = structlog.get_logger(room="peers")
MESSAGES = (500, 100.0)
"""How many messages of one peer are taken at once, and how many a second after that; over one link or several."""
COSTS = {"offer": 10, "eviction": 20, "statements": 20, "proof": 20, "left": 20, "farewell": 20}
"""For how many messages one counts that costs more than to be read."""
BEATS = (20, 5.0)
"""The same of beats, for the usual interval of a second."""
LOOKS_A_BEAT = 4
PROOFS = 16
"""So many of those that are known are said at the beginning of a link: a link carries only so much at once."""


class Batches(Protocol):
    """Both ways of batches, as the hub's parts give them."""

    deliveries: Deliveries
    receptions: Receptions


class Hub:
    """The links of one node, and what is said over them.

    Args:
        part: This node's part in the run.
        lives: The present incarnations.
        evicted: Who is out.
        vitals: Signs of life.
        receiver: Is told what is heard.
        background: Where notices are put on record.
        receipts: What is shown to a peer, and what it shows.
        proofs: What is known of nodes that gave what cannot be.
        leavers: What those signed who left.
        clock: Seconds that do not go back: those of events.
    """

    def __init__(
        self,
        part: Part,
        lives: Lives,
        evicted: Evicted,
        vitals: Vitals,
        receiver: Receiver,
        background: Background,
        receipts: Receipts,
        proofs: Proofs,
        leavers: Leavers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part, self.lives, self.evicted, self.vitals = part, lives, evicted, vitals
        self.links = Links(self._lost)
        self._receiver, self._background, self._clock = receiver, background, clock
        self._receipts, self._proofs, self._leavers = receipts, proofs, leavers
        self._farewell: SignedMass | None = None
        self._messages, self._beats = Buckets(*MESSAGES), Buckets(BEATS[0], BEATS[1] / vitals.beat_s)
        self._batches: Batches | None = None
        self._obstacles = Obstacles()
        self._unwritten: dict[SignedNotice, asyncio.Task[None]] = {}
        """Notices that count, and for which this machine has no room yet."""

    def carry(self, batches: Batches) -> None:
        """Who takes care of batches: told once, before anything is opened."""
        self._batches = batches

    @property
    def batches(self) -> Batches:
        """Who takes care of batches."""
        if self._batches is None:
            raise RuntimeError("nobody was told to take care of batches")
        return self._batches

    # -- links ------------------------------------------------------------------------------------------------------

    def admit(self, name: str, hello: Hello) -> Incarnation:
        """Check a peer's hello; which incarnation it is.

        Raises:
            CoveyError: It does not fit, as `Part.refuse` and `Lives.admit` say.
        """
        self.part.refuse(name, hello)
        who, is_new = self.lives.admit(name, hello)
        if is_new:
            log.info("a new incarnation takes part", node=who.node, incarnation=who.number)
            self._receiver.heard(who, PeerJoined(who, hello.minted, self._clock()))
        return who

    def notices_about(self, name: str, hello: Hello) -> list[SignedNotice]:
        """The notices about an incarnation that says hello, if it is out; for it to have in this order."""
        return self.evicted.notices_of(Incarnation(name, hello.incarnation))

    def opened(self, link: Link) -> None:
        """A link stands: before anything else is said, each side shows what the other one signed.

        Raises:
            Conflict: As `Links.open`.
        """
        self.links.open(link)
        link.send(shown_message(self._receipts.shown_to(link.peer)))
        for proof in self._proofs.all()[:PROOFS]:
            link.send(proof_message(proof))
        own = [self._farewell] if self._farewell is not None else []
        for signed in [*own, *self._leavers.signed()[:PROOFS]]:
            link.send(farewell_message(signed))
        self.vitals.began(link.peer.node, self._clock())
        log.info("connected", peer=str(link.peer), called="by us" if link.is_ours else "by it")

    def closed(self, link: Link) -> None:
        """A link's stream has ended."""
        self.links.forget(link)

    def _lost(self, link: Link) -> None:
        log.info("connection ended", peer=str(link.peer))
        self.batches.deliveries.lost(link)
        self.batches.receptions.lost(link)

    def greeting(self) -> list[pb.PeerMessage]:
        """What is said first over each link: the hello, and all notices."""
        notices = [pb.PeerMessage(eviction=eviction_message(notice)) for notice in self.evicted.notices()]
        return [hello_message(self.part.hello()), *notices]

    async def outgoing(self, link: Link) -> AsyncGenerator[pb.PeerMessage, None]:
        """What is to be sent over a link, until it ends."""
        while (message := await link.outbox.get()) is not None:
            yield message

    async def read(self, link: Link, messages: AsyncIterable[pb.PeerMessage]) -> None:
        """Take what comes over a link, until it ends. What is not read is not sent: a flood is its sender's problem."""
        try:
            async for message in messages:
                self._take(link, message)
                await self.paced(link.peer.node, message)
        finally:
            link.close()

    async def paced(self, name: str, message: pb.PeerMessage) -> None:
        """Wait before the next message of a peer is taken, where there are too many; over all of its links together."""
        now = time.monotonic()
        wait_s = self._messages.of(name, now).take(now, COSTS.get(message.WhichOneof("kind") or "", 1))
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _take(self, link: Link, message: pb.PeerMessage) -> None:
        if link.ended.is_set():  # what a replaced link still says counts no more
            return
        self.vitals.spoke(link.peer.node, self._clock())
        match message.WhichOneof("kind"):
            case "offer":
                self.batches.receptions.offered(link, message.offer)
            case "grant":
                self.batches.deliveries.granted(link, message.grant)
            case "acknowledged":
                self.batches.deliveries.acknowledged(link, message.acknowledged)
            case "refused":
                self.batches.deliveries.refused(link, message.refused)
            case "eviction":
                self._background.spawn(self.told(message, link.peer.node))
            case "statements":
                self._shown(link.peer, message.statements)
            case "proof":
                self._background.spawn(self._proven(proof_from(message.proof), link.peer.node))
            case "farewell":
                self._background.spawn(self._left(mass_from(message.farewell), link.peer.node))
            case "goodbye":
                code, reason = message.goodbye.code[:50], printable(message.goodbye.reason[:200])
                log.info("goodbye", peer=str(link.peer), code=code, reason=reason)
                link.close()
            case _:
                self._hear(link.peer, message)

    def _hear(self, peer: Incarnation, message: pb.PeerMessage) -> None:
        try:
            event = said_from(peer, message, self._clock())
        except ValueError as error:
            log.warning("a message that cannot be", peer=str(peer), reason=str(error))
            return
        if event is not None:
            self._receiver.heard(peer, event)

    def _shown(self, peer: Incarnation, message: pb.PeerStatements) -> None:
        try:
            given, had = self._receipts.shown_by(peer, shown_from(message))
        except CoveyError as error:
            log.warning("statements that do not count", peer=str(peer), reason=str(error))
            return
        self._receiver.heard(peer, StatementsShown(peer, given, had, self._clock()))

    def say(self, peer: Incarnation, event: Told) -> None:
        """Say something to a peer; without a link it is dropped."""
        link = self.links.of(peer)
        if link is not None:
            link.send(said_message(event))

    # -- beats ------------------------------------------------------------------------------------------------------

    async def beats(self, link: Link) -> AsyncGenerator[pb.PeerBeat, None]:
        """This side's signs of life, until the link ends."""
        while not link.ended.is_set():
            yield beat_message(self.vitals.next_beat(link.peer.node, self._clock()))
            try:
                async with asyncio.timeout(self.vitals.beat_s):
                    await link.ended.wait()
            except TimeoutError:
                continue

    async def hear_beats(self, link: Link, beats: AsyncIterable[pb.PeerBeat]) -> None:
        """The other side's, until they end; then the link is of no use."""
        pace = self._beats.of(link.peer.node, time.monotonic())
        async for beat in beats:
            if link.ended.is_set():
                return
            self.vitals.heard(link.peer.node, beat_from(beat), self._clock())
            wait_s = pace.take(time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    async def watch(self) -> None:
        """Until cancelled: say who is suspected or trusted, and end links over which nothing comes."""
        while True:
            await asyncio.sleep(self.vitals.beat_s / LOOKS_A_BEAT)
            now = self._clock()
            for name, change in self.vitals.changes(now):
                peer = self.lives.of(name)
                log.info(change, peer=str(peer))
                event = PeerSuspected(peer, now) if change == "suspected" else PeerTrusted(peer, now)
                self._receiver.heard(peer, event)
            for link in self.links:
                if self.vitals.is_silent(link.peer.node, now):
                    link.close(SILENT, "no sign of life came for a while")
                    self.closed(link)

    def recall(self) -> None:
        """Tell of the evictions and farewells that are on disk."""
        for who in [*self.evicted, *map(self.lives.of, self.evicted.for_good)]:
            self._receiver.heard(who, PeerEvicted(who, self._clock()))
        for statement in self._leavers:
            self._hear_left(statement)

    # -- notices ----------------------------------------------------------------------------------------------------

    async def notified(self, notice: SignedNotice, by: str) -> bool:
        """A notice of eviction came; whether it was new. It counts, and is said on, once it is on record.

        Raises:
            IdentityError, NotFound, LimitExceeded: It does not count.
            StoreError: It cannot be put on record; where that is this machine's trouble, it is tried again and again.
        """
        try:
            taken = await asyncio.to_thread(self.evicted.take, notice)
        except Obstructed:
            if notice not in self._unwritten:  # who said it does so once a link
                self._unwritten[notice] = self._background.spawn(self._notified_again(notice, by))
            raise
        except CoveyError as error:
            log.warning("a notice of eviction that does not count", by=by, reason=str(error))
            raise
        return taken is not None and self._out(taken[1], notice, by)

    async def _notified_again(self, notice: SignedNotice, by: str) -> None:
        try:
            take = partial(asyncio.to_thread, self.evicted.take, notice)
            if (taken := await self._obstacles.passed("notices of eviction", take)) is not None:
                self._out(taken[1], notice, by)
        finally:
            del self._unwritten[notice]

    def _out(self, statement: EvictionStatement, notice: SignedNotice, by: str) -> bool:
        """An incarnation is out, or all of a node, and that is on record: everybody is told."""
        present = self.lives.of(statement.node)
        out = {Incarnation(statement.node, statement.incarnation)}
        if statement.is_for_good:
            out.add(present)
        for who in sorted(out):
            self._receiver.heard(who, PeerEvicted(who, self._clock()))
        message = pb.PeerMessage(eviction=eviction_message(notice))
        for link in self.links:
            if link.peer.node != by or link.peer in out:
                link.send(message)
            if link.peer in out:
                link.close(EVICTED, statement.reason)
                self.closed(link)
        if present in out:
            self.vitals.forget(statement.node)
        return True

    async def told(self, message: pb.PeerMessage, by: str) -> None:
        """Take the notice that a message may be; one that comes instead of a hello tells an evicted node of it."""
        if message.WhichOneof("kind") == "eviction":
            with contextlib.suppress(CoveyError):
                await self.notified(eviction_from(message.eviction), by)

    # -- proofs -----------------------------------------------------------------------------------------------------

    def refused(self, peer: Incarnation, sequence: int) -> None:
        """This node refuses a batch: where what its sender signed proves that it cannot be, all are told."""
        proof = self._receipts.refused(peer, sequence)
        if proof is not None:
            self._background.spawn(self._proven(proof, self.part.me.node))

    async def _proven(self, proof: Proof, by: str) -> None:
        """Keep what proves something, and say it on: everybody checks it alike."""
        try:
            excess = await asyncio.to_thread(self._proofs.take, proof)
        except CoveyError as error:
            if by != self.part.me.node:  # else the batch was refused for something else
                log.warning("a proof that does not count", by=by, reason=str(error))
            return
        if excess is not None:
            log.warning("a node gave what cannot be", node=str(excess.who), by=by, proof=str(excess))
            for link in self.links:
                if link.peer.node != by:
                    link.send(proof_message(proof))

    # -- leavers ----------------------------------------------------------------------------------------------------

    def leave(self, ledger: Ledger) -> None:
        """This node has left with this account: it signs that, once, and says it to all; they say it on."""
        if self._farewell is None:
            self._farewell = self._receipts.left(ledger)
            for link in self.links:
                link.send(farewell_message(self._farewell))

    async def _left(self, signed: SignedMass, by: str) -> None:
        """Keep what a leaver signed, act on it, and say it on."""
        try:
            statement = await asyncio.to_thread(self._leavers.take, signed)
        except CoveyError as error:
            log.warning("a farewell that does not count", by=by, reason=str(error))
            return
        if statement is not None:
            self._hear_left(statement)
            for link in self.links:
                if link.peer.node not in (by, statement.node):
                    link.send(farewell_message(signed))

    def _hear_left(self, statement: LeaverStatement) -> None:
        if statement.who != self.part.me:
            _, had = statement.with_peer(self.part.me)
            self._receiver.heard(statement.who, PeerLeft(statement.who, had, self._clock()))

    async def part_with(self, code: str, reason: str) -> None:
        """End all links, in order, and what is tried again and again."""
        await end(list(self._unwritten.values()))
        for link in self.links:
            link.close(code, reason)
            self.closed(link)
