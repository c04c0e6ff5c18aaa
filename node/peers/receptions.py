"""Batches on their way in: checked before anything is allocated, a few bodies at a time, acknowledged when durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from covey import faults
from covey.artifact import CHUNK_BYTES, INLINE_BYTES, Artifact
from covey.driver.background import Background
from covey.errors import CoveyError, InvalidUpdate, LedgerError, NotFound, NotReady, Stalled, TransferError
from covey.gossip.ledger import Incarnation
from covey.node.gossip.ports import Receiver
from covey.node.gossip.receipts import Receipts
from covey.node.models.holders import Holders
from covey.node.models.sizes import require_size
from covey.node.peers.links import Link
from covey.node.peers.ports import Files
from covey.node.peers.room import Quota, Room
from covey.node.peers.translation import MAX_SEQUENCE, MAX_STEP, mass_from, mass_message
from covey.protos import peer_pb2 as pb
from covey.wire.artifacts import artifact_from
from covey.wire.errors import public
from covey.wire.transfers.grants import Grants
from covey.wire.transfers.streams import receive

log = structlog.get_logger(room="peers")
STALL_S = 30.0
LOOK_S = 2.0
SLOTS = 4
"""So many bodies may be on their way to this node at once."""
Fetch = Callable[[str, Artifact, Callable[[int], None]], Awaitable[None]]
"""(peer's name, body, told of the bytes of each chunk): brings a body here over a connection of this node's."""


@dataclass(eq=False)
class _Reception:
    link: Link
    sequence: int
    units: int
    step: int
    body: Artifact
    data: bytes
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    """The body has come whole."""
    moved_at: float = field(default_factory=time.monotonic)
    is_moving: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.link.peer.node, self.body.digest


class Receptions:
    """All batches on their way to this node: one a peer, its newest offer counts.

    Args:
        holders: Of the files where bodies come: of each, from its offer until its batch is taken, or given up.
        receiver: Is given what has come.
        fetch: Brings a body here.
        background: Where that is done.
        body_bytes: The sizes that bodies of this run may have.
        receipts: Checks what senders sign, and signs what is had.
        on_refused: Told of a batch that the receiver refuses, and who gave it.
        room: What bodies may take here; None: what is free.
        stall_s: How long nothing may come of a body that was granted.
        slots: How many bodies may come at once.
    """

    def __init__(
        self,
        holders: Holders[Files],
        receiver: Receiver,
        fetch: Fetch,
        background: Background,
        body_bytes: range,
        receipts: Receipts,
        on_refused: Callable[[Incarnation, int], None] = lambda _, __: None,
        *,
        room: Room | None = None,
        stall_s: float = STALL_S,
        slots: int = SLOTS,
    ) -> None:
        self._holders, self._receiver, self._fetch, self._background = holders, receiver, fetch, background
        self._files = files = holders.files
        self._body_bytes, self._receipts, self._stall_s = body_bytes, receipts, stall_s
        self._on_refused, self._room = on_refused, room or Room(files, Quota())
        self._grants: Grants[tuple[str, str]] = Grants(slots)
        """By (peer's name, digest)."""
        self._open: dict[str, _Reception] = {}
        self._applied: dict[Incarnation, int] = {}
        """Numbers of the newest batches that this node is known to have durably."""
        self._arriving: set[asyncio.Future[None]] = set()
        """What is being handed over."""
        self._parts: dict[str, str] = {}
        """By peer's name: the digest of the body of which a part may stay, the one that was granted last."""

    def has_up_to(self, peer: Incarnation, sequence: int) -> None:
        """This node says itself that it has a peer's batches up to this one."""
        self._applied[peer] = max(sequence, self._applied.get(peer, 0))

    # -- offers -----------------------------------------------------------------------------------------------------

    def offered(self, link: Link, offer: pb.BatchOffer) -> None:
        """A peer offers a batch; answers over its link."""
        try:
            self._receipts.offered(link.peer, offer.sequence, mass_from(offer.given))
            if 1 <= offer.sequence <= self._applied.get(link.peer, 0):
                self._acknowledge(link, offer.sequence)
                return
            reception = self._checked(link, offer)
        except CoveyError as error:
            _refuse(link, offer.sequence, error)
            return
        digest = reception.body.digest
        self._holders.hold(digest)  # before it is looked for, and before what came of the same body is let go
        self.drop(link.peer.node)  # whoever offers again has given up what was on its way
        self._open[link.peer.node] = reception
        reception.task = self._background.spawn(self._take(reception))
        reception.task.add_done_callback(lambda _: self._holders.release(digest))

    def _checked(self, link: Link, offer: pb.BatchOffer) -> _Reception:
        body = artifact_from(offer.body)
        if not 1 <= offer.sequence < MAX_SEQUENCE or offer.units < 1 or offer.step >= MAX_STEP:
            raise LedgerError(f"batch {offer.sequence} with {offer.units} units of step {offer.step} cannot be")
        require_size(body, self._body_bytes, "a body")
        if len(offer.data) not in (0, body.size_bytes) or len(offer.data) > INLINE_BYTES:
            raise InvalidUpdate("the body came along, but not whole, or it is too large for that")
        return _Reception(link, offer.sequence, offer.units, offer.step, body, offer.data)

    async def _take(self, reception: _Reception) -> None:
        """Bring the body here, hand it over, and say what became of it."""
        link, body = reception.link, reception.body
        try:
            if not await asyncio.to_thread(self._files.check, body.digest):
                coming = {other.body.digest for other in self._open.values() if other is not reception}
                await asyncio.to_thread(self._room.require, body, reception.step, coming)
                await self._bring(reception)
            faults.reach("batch-here")
            await self._hand_over(reception)
        except Exception as error:
            log.warning("batch not taken", peer=str(link.peer), sequence=reception.sequence, reason=str(error))
            _refuse(link, reception.sequence, error)
            if isinstance(error, LedgerError):
                self._on_refused(link.peer, reception.sequence)
            if isinstance(error, CoveyError):
                return
            raise
        finally:
            self._ended(reception)
            await self._forget_part(body.digest)
        faults.reach("batch-durable")
        self._grants.succeeded(link.peer.node)
        self.has_up_to(link.peer, reception.sequence)
        self._acknowledge(link, reception.sequence)

    def _acknowledge(self, link: Link, sequence: int) -> None:
        signed = self._receipts.countersigned(link.peer, sequence)
        had = mass_message(signed) if signed is not None else None
        link.send(pb.PeerMessage(acknowledged=pb.BatchAcknowledged(sequence=sequence, had=had)))

    async def _hand_over(self, reception: _Reception) -> None:
        """Give the receiver what has come. What is being put on record is not broken off because the link breaks."""
        who, what = reception.link.peer, (reception.sequence, reception.units, reception.step, reception.body)
        arriving = asyncio.ensure_future(self._receiver.arrived(who, *what))
        self._holders.hold(reception.body.digest)
        self._arriving.add(arriving)

        def arrived(done: asyncio.Future[None]) -> None:
            self._arriving.discard(done)
            self._holders.release(reception.body.digest)

        arriving.add_done_callback(arrived)
        await asyncio.shield(arriving)

    async def _bring(self, reception: _Reception) -> None:
        body = reception.body
        if reception.data:
            putting = asyncio.ensure_future(asyncio.to_thread(self._files.put, body, reception.data))
            try:
                await asyncio.shield(putting)
            except asyncio.CancelledError:
                await asyncio.wait({putting})  # a thread cannot be cancelled: let go of what it made, not before
                raise
            return
        small = body.size_bytes <= CHUNK_BYTES
        if self._grants.request(reception.key, reception.link.peer.node, small=small, now=time.monotonic()):
            reception.granted.set()
        await reception.granted.wait()
        await self._only_part(reception)
        reception.moved_at = time.monotonic()
        offset = await asyncio.to_thread(self._files.offset, body)
        grant = pb.BatchGrant(sequence=reception.sequence, digest=body.digest, offset=offset)
        reception.link.send(pb.PeerMessage(grant=grant))
        watch = asyncio.create_task(self._watched(reception))
        bring = asyncio.create_task(self._come(reception))
        try:
            done, _ = await asyncio.wait({watch, bring}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, bring):
                task.cancel()
            await asyncio.gather(watch, bring, return_exceptions=True)

    async def _only_part(self, reception: _Reception) -> None:
        """Drop what came of the body before: one unfinished body a peer stays, to be gone on with."""
        name, digest = reception.key
        before, self._parts[name] = self._parts.get(name), digest
        if before is not None and before not in self._parts.values():
            await asyncio.to_thread(self._files.forget, [before])

    async def _come(self, reception: _Reception) -> None:
        if reception.link.is_ours:
            await self._fetch(reception.link.peer.node, reception.body, lambda count: self._moved(reception, count))
        else:
            await reception.whole.wait()

    async def _watched(self, reception: _Reception) -> None:
        """Ends, with the reason, what does not move, or keeps others waiting for too long."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if now - reception.moved_at > self._stall_s:
                raise Stalled(f"nothing came of the batch's body for {self._stall_s:g} s")
            if self._grants.overdue(reception.key, now):
                raise NotReady("others wait: offer the batch again, and go on where this ended")

    def _moved(self, reception: _Reception, count: int) -> None:
        reception.moved_at = time.monotonic()
        self._grants.moved(reception.key, count, reception.moved_at)
        faults.reach("batch-chunk")

    # -- a body that the peer pushes --------------------------------------------------------------------------------

    async def pushed(self, link: Link, digest: str, offset: int, stream: AsyncIterator[memoryview]) -> int:
        """A peer sends the body of the batch that it offered over a link; how many bytes are here in the end.

        Raises:
            NotFound: It was not granted that, or does so already.
            TransferError: As `covey.wire.transfers.streams.receive`, or the batch was given up.
        """
        reception = self._open.get(link.peer.node)
        is_asked = reception is not None and reception.link is link and reception.body.digest == digest
        if reception is None or not is_asked or not reception.granted.is_set() or reception.is_moving:
            raise NotFound("only the body of a batch that was offered, and granted, can be pushed, once at a time")
        reception.is_moving = True
        self._holders.hold(digest)

        def moved(count: int) -> None:
            if self._open.get(link.peer.node) is not reception:
                raise TransferError("this batch was given up: offer it again")
            self._moved(reception, count)

        try:
            spool = await asyncio.to_thread(self._files.begin, reception.body)
            await receive(stream, spool, offset=offset, stall_s=self._stall_s, on_progress=moved)
        finally:
            reception.is_moving = False
            self._holders.release(digest)  # if it was given up after its last chunk, nobody else holds it
            is_open = self._open.get(link.peer.node) is reception
            if not is_open:
                await self._forget_part(digest)
        if not is_open:
            raise TransferError("this batch was given up: offer it again")
        reception.whole.set()
        return reception.body.size_bytes

    # -- the end ----------------------------------------------------------------------------------------------------

    def drop(self, name: str) -> None:
        """Give up what is on its way from a node: it offers again."""
        reception = self._open.pop(name, None)
        if reception is not None and reception.task is not None:
            reception.task.cancel()

    def lost(self, link: Link) -> None:
        """A link is gone."""
        reception = self._open.get(link.peer.node)
        if reception is not None and reception.link is link:
            self.drop(link.peer.node)

    def _ended(self, reception: _Reception) -> None:
        name = reception.link.peer.node
        if self._open.get(name) is reception:
            del self._open[name]
        # A newer offer of the same body by the same node goes on with the slot: it asked for it since.
        newer = self._open.get(name)
        for key in self._grants.release(reception.key) if newer is None or newer.key != reception.key else ():
            waiting = self._open.get(key[0])
            if waiting is not None and waiting.key == key:
                waiting.granted.set()

    async def _forget_part(self, digest: str) -> None:
        """Drop what came of a body unless it is to be gone on with: it is whole, or its peers had others granted."""
        if digest not in self._files.unfinished():
            return
        is_awaited = digest in {*self._parts.values(), *(other.body.digest for other in self._open.values())}
        if not is_awaited or self._files.path(digest).exists():
            await asyncio.to_thread(self._files.forget, [digest])


def _refuse(link: Link, sequence: int, error: Exception) -> None:
    _, text, code = public(error)
    if text != str(error)[: len(text)]:  # what is wrong is on this side
        text = "it cannot be taken now; see this node's log"
    link.send(pb.PeerMessage(refused=pb.BatchRefused(sequence=sequence, code=code, reason=text)))
