"""Batches on their way out: offered over the link, their bodies streamed once they are granted, until acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from covey import faults
from covey.artifact import INLINE_BYTES, Artifact
from covey.driver.background import Background
from covey.errors import CoveyError, NotFound, Stalled, StoreError, TransferError, by_code
from covey.gossip.ledger import Batch, Incarnation
from covey.node.gossip.receipts import Receipts
from covey.node.peers.links import Link, Links
from covey.node.peers.ports import Files
from covey.node.peers.translation import mass_from, mass_message
from covey.protos import peer_pb2 as pb
from covey.storage.files.spool import obstruction
from covey.texts import printable
from covey.wire.artifacts import artifact_message
from covey.wire.transfers.streams import serve_download

log = structlog.get_logger(room="peers")
STALL_S = 30.0
LOOK_S = 1.0
MAX_REASON = 1000
Push = Callable[[str, Artifact, int, Callable[[int], None]], Awaitable[None]]
"""(peer's name, body, offset, told of the bytes of each chunk): sends a body over a connection of this node's."""


@dataclass(eq=False)
class _Delivery:
    link: Link
    batch: Batch
    body: Artifact
    answer: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    moved_at: float | None = None
    """When it was granted, or its last byte went (monotonic seconds); None: it waits for its turn."""
    push: asyncio.Task[None] | None = None

    def moved(self, _: int = 0) -> None:
        self.moved_at = time.monotonic()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Deliveries:
    """All batches on their way from this node: one a peer.

    Args:
        links: The open links.
        files: Where bodies are.
        push: Sends a body.
        background: Where bodies are sent.
        receipts: Signs what is given, and keeps what peers sign to have had.
        stall_s: How long nothing may pass of a body that was granted.
    """

    def __init__(
        self,
        links: Links,
        files: Files,
        push: Push,
        background: Background,
        receipts: Receipts,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        self._receipts = receipts
        self._links, self._files, self._push, self._background = links, files, push, background
        self._stall_s = stall_s
        self._open: dict[Incarnation, _Delivery] = {}

    async def send(self, batch: Batch, step: int, body: Artifact) -> None:
        """As `Peers.send`."""
        link = self._links.of(batch.peer)
        if link is None:
            raise TransferError(f"there is no connection to {batch.peer}")
        if batch.peer in self._open:
            raise TransferError(f"a batch is on its way to {batch.peer} already")
        delivery = self._open[batch.peer] = _Delivery(link, batch, body)
        try:
            link.send(await self._offer(batch, step, body))
            await self._answered(delivery)
        finally:
            del self._open[batch.peer]
            if delivery.push is not None:
                delivery.push.cancel()
        faults.reach("batch-acknowledged")

    async def _offer(self, batch: Batch, step: int, body: Artifact) -> pb.PeerMessage:
        data = b""
        if body.size_bytes <= INLINE_BYTES:
            try:
                data = await asyncio.to_thread(self._files.path(body.digest).read_bytes)
            except OSError as error:
                problem = obstruction(error) or StoreError(f"the body of a batch cannot be read: {error.strerror}")
                raise problem from error
        given = mass_message(self._receipts.given(batch))
        offer = pb.BatchOffer(
            sequence=batch.sequence, units=batch.units, step=step, body=artifact_message(body), data=data, given=given
        )
        return pb.PeerMessage(offer=offer)

    async def _answered(self, delivery: _Delivery) -> None:
        """Wait for the answer, as long as something moves; a peer that lets us wait for our turn is waited for."""
        while not delivery.answer.done():
            await asyncio.wait({delivery.answer}, timeout=LOOK_S)
            idle_s = 0.0 if delivery.moved_at is None else time.monotonic() - delivery.moved_at
            if idle_s > self._stall_s:
                delivery.fail(Stalled(f"{delivery.batch.peer} took nothing of a batch for {self._stall_s:g} s"))
        delivery.answer.result()

    # -- what the peer says -----------------------------------------------------------------------------------------

    def granted(self, link: Link, grant: pb.BatchGrant) -> None:
        """A peer takes an offered batch."""
        delivery = self._of(link, grant.sequence)
        if delivery is None or grant.digest != delivery.body.digest:
            return
        delivery.moved()
        if link.is_ours and delivery.push is None:
            delivery.push = self._background.spawn(self._stream(delivery, grant.offset))

    async def _stream(self, delivery: _Delivery, offset: int) -> None:
        try:
            await self._push(delivery.batch.peer.node, delivery.body, offset, delivery.moved)
        except CoveyError as error:
            delivery.fail(error if isinstance(error, TransferError) else TransferError(str(error)))

    def acknowledged(self, link: Link, answer: pb.BatchAcknowledged) -> None:
        """A peer has a batch durably."""
        delivery = self._of(link, answer.sequence)
        if delivery is not None and not delivery.answer.done():
            if answer.HasField("had"):
                self._receipts.had(delivery.batch, mass_from(answer.had))
            delivery.answer.set_result(None)

    def refused(self, link: Link, refusal: pb.BatchRefused) -> None:
        """A peer does not take a batch."""
        delivery = self._of(link, refusal.sequence)
        if delivery is None:
            return
        kind, reason = by_code().get(refusal.code, TransferError), printable(refusal.reason[:MAX_REASON])
        text = f"{delivery.batch.peer} does not take batch {refusal.sequence}: {reason}"
        delivery.fail(kind(text) if refusal.code == "ledger" else TransferError(text))

    def lost(self, link: Link) -> None:
        """A link is gone, and with it what was on its way over it."""
        delivery = self._open.get(link.peer)
        if delivery is not None and delivery.link is link:
            delivery.fail(TransferError(f"the connection to {link.peer} broke"))

    def _of(self, link: Link, sequence: int) -> _Delivery | None:
        delivery = self._open.get(link.peer)
        return (
            delivery if delivery is not None and (delivery.link, delivery.batch.sequence) == (link, sequence) else None
        )

    async def fetched(self, link: Link, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        """The body of the batch that was offered over a link, for a peer that called for it.

        Raises:
            NotFound: No such batch was offered, or it was not granted.
            TransferError: The offset cannot be.
        """
        delivery = self._open.get(link.peer)
        if delivery is None or delivery.link is not link or delivery.body.digest != digest or not delivery.moved_at:
            raise NotFound("only the body of a batch that was offered, and granted, can be fetched")
        async with aclosing(serve_download(self._files.path(digest), delivery.body, offset)) as chunks:
            async for chunk in chunks:
                if delivery.answer.done():
                    raise TransferError("this batch was given up")
                delivery.moved()
                yield chunk
