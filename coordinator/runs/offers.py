"""How an update comes in: offer, checks, grant, bytes, durable record, receipt. In that order, each repeatable.

Nothing is allocated before the offer was checked against the run. A bad offer costs its sender this round only.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import structlog

from covey import faults
from covey import messages as msg
from covey.artifact import Artifact, chunk_count
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.claims import claimed_parts, opened, run_named
from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.runs.ports import Receive, RunServices
from covey.coordinator.runs.sent_again import Resent
from covey.coordinator.runs.unfinished import UnfinishedUploads
from covey.driver.background import Background
from covey.errors import (
    Conflict,
    CorruptChunk,
    CoveyError,
    IdentityError,
    InvalidUpdate,
    Late,
    NotFound,
    NotReady,
    TransferError,
    public_text,
)
from covey.machines.protocol import NodeAnswered, TransferProgressed, UpdateStored
from covey.storage.record.contract import EventRecord, PartRecord, UpdateRecord
from covey.wire.identities.signing import ReceiptStatement, UpdateStatement
from covey.wire.transfers.grants import Grants

log = structlog.get_logger(room="coordinator")
STALL_S = 30.0
LOOK_S = 2.0
"""How often it is looked at whether a transfer has its slot for too long."""


@dataclass
class Offer:
    """An accepted offer whose bytes are (still) coming."""

    node: str
    digest: str
    statement: UpdateStatement
    raw: bytes
    signature: bytes
    parts: tuple[PartRecord, ...]
    run: ActiveRun
    granting: bool = False
    """Whether it is just being found out from where it is to be sent."""
    moved_at: float = 0.0
    """When its grant was sent, or its last byte came (monotonic seconds)."""

    @property
    def key(self) -> tuple[str, str]:
        """The node, and the run's id."""
        return self.node, self.statement.run

    @property
    def holder(self) -> str:
        """Who holds the slot of its upload: a node may upload for one run while it waits for its turn in another."""
        return f"{self.node} {self.statement.run}"

    @property
    def small(self) -> bool:
        """Whether it needs no grant."""
        return sum(chunk_count(part.artifact.size_bytes) for part in self.parts) <= len(self.parts)


NODE_NOTICE = "node-notice"
"""Kind of event: what went wrong on a node, as it says itself with an update."""


class Offers:
    """The offers of all nodes: at most one a node and run, the newest wins.

    Args:
        services: What runs are given.
        runs: The active ones.
        background: Where grants are sent and watched.
        receive: How bytes come in.
    """

    def __init__(self, services: RunServices, runs: ActiveRuns, background: Background, receive: Receive) -> None:
        self._services, self._runs, self._background, self._receive = services, runs, background, receive
        self._offers: dict[tuple[str, str], Offer] = {}
        self._uploads: Grants[str] = Grants()
        """By the update's digest."""
        self.unfinished = UnfinishedUploads(services, runs)

    def digests(self) -> set[str]:
        """Of all parts of the updates that are on their way. From any thread."""
        return {part.artifact.digest for offer in list(self._offers.values()) for part in offer.parts}

    # -- offers ---------------------------------------------------------------------------------------------------

    async def offer(self, node: str, message: msg.UpdateOffer) -> None:
        """Take an offer: answers with a receipt (already here), a grant (now or later) or a refusal."""
        digest = hashlib.sha256(message.statement).hexdigest()
        offer = None
        try:
            offer = await self._check(node, digest, message)
            if offer is not None:
                before = self._offers.get(offer.key)
                if before is not None and before.digest == digest:
                    offer = before
                elif before is not None:
                    self.released(before.digest)
                self._offers[offer.key] = offer
                await self._take(offer, message)
        except (InvalidUpdate, IdentityError, Conflict, CorruptChunk) as error:
            log.warning("offer refused", node=node, code=error.code, error=str(error))
            self._refuse(node, digest, error.code, public_text(error))
            await self._reject(node, message, error)
        except CoveyError as error:
            self._services.store.obstacle.met(error, "" if offer is None else offer.statement.run)
            log.warning("offer not taken now", node=node, code=error.code, error=str(error))
            self._refuse(node, digest, error.code, public_text(error))

    async def _take(self, offer: Offer, message: msg.UpdateOffer) -> None:
        """Go on with a checked offer: record it at once if its bytes are here or came along, else grant the upload."""
        held = {part.artifact.digest for part in offer.parts} - {p.artifact.digest for p in self._missing(offer)}
        data = {part.artifact.digest: part.data for part in message.parts if part.data}
        if all(part.artifact.digest in held or part.artifact.digest in data for part in offer.parts):
            await self._completed(offer, data)
        elif self._uploads.request(offer.digest, offer.holder, small=offer.small, now=time.monotonic()):
            self.granted(offer.digest)

    async def _check(self, node: str, digest: str, message: msg.UpdateOffer) -> Offer | None:
        services = self._services
        key = await services.members.present_key(node)
        statement = await asyncio.to_thread(opened, key, message.statement, message.signature)
        if statement.node != node or statement.federation != services.federation:
            raise IdentityError("the statement names another node or federation")
        run = self._runs.of(statement.run)
        ready = run is not None and run.machine is not None  # now, as what is expected: both may change while we look
        expected = run is not None and run.expects(node, statement.round)
        expected = expected and run is not None and statement.phase == run.mode.open_phase(node)
        if not expected and await self._already_here(statement, digest):
            self._receipt(node, digest, statement)
            return None
        if not ready and (await services.store.call(services.store.store.run, statement.run)).state == "running":
            raise NotReady("the coordinator is just taking up this run; offer again")
        if run is None or not expected:
            raise Late("this round does not take an update of this node any more")
        parts = claimed_parts(run, statement, message)
        return Offer(node, digest, statement, message.statement, message.signature, parts, run)

    async def _already_here(self, statement: UpdateStatement, digest: str) -> bool:
        store = self._services.store
        for update in await store.call(store.store.updates, statement.run, statement.round):
            if (update.node, update.phase) == (statement.node, statement.phase) and update.digest:
                if update.digest == digest:
                    return True
                raise Conflict("this node has sent another update for this round already")
        return False

    # -- bytes ----------------------------------------------------------------------------------------------------

    def granted(self, digest: str) -> None:
        """A slot is free for this offer: tell its node which parts to send, and from where."""
        offer = self._by_digest(digest)
        if offer is None:
            self.released(digest)
        elif not offer.granting:  # once for any number of the same offers
            offer.granting = True
            self._background.spawn(self._send_grant(offer))

    async def _send_grant(self, offer: Offer) -> None:
        # In a thread: what a crash left of a file is read and hashed to find where to go on.
        try:
            wanted = await asyncio.to_thread(self._offsets, offer)
        finally:
            offer.granting = False
        if not offer.moved_at:
            self._background.spawn(self._watch(offer))
        offer.moved_at = time.monotonic()
        if not self._services.nodes.send(offer.node, msg.UploadGrant(offer.digest, wanted)):
            self.released(offer.digest)

    def _offsets(self, offer: Offer) -> tuple[tuple[str, int], ...]:
        files = self._services.files
        return tuple((part.artifact.digest, files.offset(part.artifact)) for part in self._missing(offer))

    def released(self, digest: str) -> None:
        """Give a slot back, and grant it to whoever waits."""
        for key in self._uploads.release(digest):
            self.granted(key)

    async def receive(
        self, node: str, digest: str, offset: int, stream: AsyncIterator[memoryview], *, sent: int = 0
    ) -> int:
        """Take one part's bytes from `offset` on; returns how many are here when the stream ended.

        `sent`: how many the node says that it has sent before.
        """
        offer, artifact = self.require_grant(node, digest)
        if not self._services.files.has(digest):
            offer.run.progress.entered(node, NodeProgress("uploading"))
            if (again := min(sent, artifact.size_bytes) - offset) > 0:
                offer.run.resent(node, Resent(up=again))
            await self._receive_part(offer, artifact, offset, stream)
        if not self._missing(offer):
            await self._completed(offer, {})
        return artifact.size_bytes

    def require_grant(self, node: str, digest: str) -> tuple[Offer, Artifact]:
        """The node's offer with this file that may be uploaded now.

        Raises:
            NotFound: There is none.
        """
        for offer in self._offers.values():
            for part in offer.parts if offer.node == node else ():
                if part.artifact.digest == digest and (offer.small or self._uploads.holds(offer.digest)):
                    return offer, part.artifact
        raise NotFound("no upload of this file is granted; offer the update first")

    async def _receive_part(
        self, offer: Offer, artifact: Artifact, offset: int, stream: AsyncIterator[memoryview]
    ) -> None:
        with self._services.store.obstacle.noted(offer.statement.run):
            spool = await asyncio.to_thread(self._services.files.begin, artifact)
        self.unfinished.begun(artifact.digest, offer.run, offer.node, offer.statement.round)

        def progressed(count: int) -> None:
            if self._offers.get(offer.key) is not offer:
                raise TransferError("this upload was given up: offer the update again")
            offer.moved_at = time.monotonic()
            self._uploads.moved(offer.digest, count, offer.moved_at)
            offer.run.progress.received(offer.node, count)
            offer.run.post(TransferProgressed(offer.node, self._services.clock()))
            faults.reach("upload-chunk")

        await self._receive(stream, spool, offset=offset, stall_s=STALL_S, on_progress=progressed)

    async def _completed(self, offer: Offer, data: Mapping[str, bytes]) -> None:
        """Complete an update; whoever waits for it may go: what is on record counts in the round, receipt or not."""
        await asyncio.shield(self._background.spawn(self._complete(offer, data)))

    async def _complete(self, offer: Offer, data: Mapping[str, bytes]) -> None:
        """Every part is here, or in `data`: make it durable, record the update, then say so."""
        statement = offer.statement
        try:
            await self._services.store.call(self._record, offer, data)
        except (Conflict, NotFound) as error:
            self._refuse(offer.node, offer.digest, Late.code, str(error))
            return
        except NotReady as error:
            self._refuse(offer.node, offer.digest, error.code, public_text(error))
            return
        finally:
            if self._offers.get(offer.key) is offer:
                self._drop(offer)
        self._services.store.obstacle.over(statement.run)
        self._uploads.succeeded(offer.holder)
        faults.reach("update-recorded")
        offer.run.progress.received(offer.node, sum(map(len, data.values())))
        self._receipt(offer.node, offer.digest, statement)
        offer.run.progress.entered(offer.node, NodeProgress("received"))
        offer.run.post(UpdateStored(offer.node, statement.round, self._services.clock(), statement.phase))

    def _record(self, offer: Offer, data: Mapping[str, bytes]) -> None:
        """In the store's thread: files first, then the row; if that came too late, the files go again."""
        files, store = self._services.files, self._services.store.store
        if offer.node in self._services.members.evicted:
            raise Conflict("this node was evicted")
        for part in offer.parts:
            if not files.has(part.artifact.digest):
                if part.artifact.digest not in data:  # it came, and went with another run that had it too
                    raise NotReady(f"the file of part {part.name!r} is not here any more; offer again")
                files.put(part.artifact, data[part.artifact.digest])
        try:
            if store.record_update(self._update_of(offer)) and (notice := offer.statement.notice):
                detail = {"round": offer.statement.round, "reason": notice}
                now = self._services.now()
                store.add_event(EventRecord(now, NODE_NOTICE, offer.statement.run, offer.node, detail))
                log.warning("a node says what went wrong", node=offer.node, run=offer.statement.run, reason=notice)
        except (Conflict, NotFound):
            self._services.retention.drop_unrecorded(store, [part.artifact.digest for part in offer.parts])
            raise

    def _update_of(self, offer: Offer) -> UpdateRecord:
        statement = offer.statement
        return UpdateRecord(
            run=statement.run,
            round=statement.round,
            node=offer.node,
            verdict="received",
            digest=offer.digest,
            statement=offer.raw,
            signature=offer.signature,
            key_id=statement.key,
            base_sha256=statement.base,
            parts=offer.parts,
            bytes=sum(part.artifact.size_bytes for part in offer.parts),
            weight=statement.weight,
            metrics=dict(statement.metrics),
            received_at=self._services.now(),
            phase=statement.phase,
        )

    # -- answers --------------------------------------------------------------------------------------------------

    def _receipt(self, node: str, digest: str, statement: UpdateStatement) -> None:
        services = self._services
        text = ReceiptStatement(
            federation=services.federation,
            run=statement.run,
            round=statement.round,
            node=node,
            update=digest,
            received_at=services.now(),
        ).to_bytes()
        services.nodes.send(node, msg.Receipt(digest, text, services.signer.sign(text)))

    def _refuse(self, node: str, digest: str, code: str, reason: str) -> None:
        self._services.nodes.send(node, msg.Refusal(digest, code, reason))

    async def _reject(self, node: str, message: msg.UpdateOffer, error: CoveyError) -> None:
        """A wrong update of an invited node is its answer for this round."""
        if isinstance(error, Conflict):
            return
        run = await self._meant(node, message)
        if run is not None:
            number = run.mode.open_round(node)
            reason = f"{error.code}: {error}"
            phase = run.mode.open_phase(node)
            run.post(NodeAnswered(node, number, "rejected", reason, self._services.clock(), phase))

    async def _meant(self, node: str, message: msg.UpdateOffer) -> ActiveRun | None:
        """The run for which an offer is; where it does not say, the only one in which the node has an open round."""
        runs = [run for run in self._runs.active.values() if run.collecting(node, run.mode.open_round(node))]
        named = await asyncio.to_thread(run_named, message.statement)
        if not named:
            return runs[0] if len(runs) == 1 else None
        return next((run for run in runs if run.run.run == named), None)

    def drop(self, node: str, run: str | None = None) -> None:
        """The node's offers, or that for one run, are void (it may offer again), and their slots are free."""
        for offer in [offer for offer in self._offers.values() if offer.node == node]:
            if run in (None, offer.statement.run):
                self._drop(offer)

    def _drop(self, offer: Offer) -> None:
        self._offers.pop(offer.key, None)
        for key in self._uploads.drop(offer.holder):
            self.granted(key)

    async def _watch(self, offer: Offer) -> None:
        """Take a grant back from a node that does nothing with it, or keeps others waiting for too long."""
        while self._offers.get(offer.key) is offer:
            await asyncio.sleep(LOOK_S)
            if self._offers.get(offer.key) is not offer:
                return
            now = time.monotonic()
            if now - offer.moved_at > STALL_S:
                self._give_up(offer, "no byte came for too long; offer again")
            elif self._uploads.overdue(offer.digest, now):
                log.info("upload interrupted: others wait", node=offer.node, run=offer.statement.run)
                for key in self._uploads.take_back(offer.digest):
                    self.granted(key)
                self._give_up(offer, "others wait: offer again, and go on where this ended")

    def _give_up(self, offer: Offer, reason: str) -> None:
        self._drop(offer)
        self._refuse(offer.node, offer.digest, NotReady.code, reason)

    def _missing(self, offer: Offer) -> list[PartRecord]:
        return [part for part in offer.parts if not self._services.files.has(part.artifact.digest)]

    def _by_digest(self, digest: str) -> Offer | None:
        return next((offer for offer in self._offers.values() if offer.digest == digest), None)
