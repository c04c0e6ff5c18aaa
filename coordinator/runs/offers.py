"""How an update comes in: offer, checks, grant, bytes, durable record, receipt. In that order, each repeatable.

Nothing is allocated before the offer was checked against the run. A bad offer costs its sender this round only.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from covey import faults
from covey.artifact import INLINE_BYTES, Artifact, chunk_count
from covey.coordinator.environment import Environment
from covey.coordinator.modes.rounds.events import NodeAnswered, TransferProgressed, UpdateStored
from covey.coordinator.runs.active_run import NodeState, RunBase
from covey.errors import (
    Conflict,
    CorruptChunk,
    CoveyError,
    IdentityError,
    InvalidUpdate,
    Late,
    LimitExceeded,
    NotFound,
    NotReady,
    TransferError,
)
from covey.protos import coordinator_pb2 as pb
from covey.storage.record.contract import PartRecord, UpdateRecord
from covey.wire.signing import ReceiptStatement, UpdateStatement, verify
from covey.wire.streams import receive

log = structlog.get_logger(room="coordinator")
MAX_WEIGHT = 1e12
STALL_S = 30.0


@dataclass
class Offer:
    """An accepted offer whose bytes are (still) coming."""

    node: str
    digest: str
    statement: UpdateStatement
    raw: bytes
    signature: bytes
    parts: tuple[PartRecord, ...]
    runner: RunBase[Any]
    moved_at: float = 0.0
    """When its grant was sent, or its last byte came (monotonic seconds)."""

    @property
    def small(self) -> bool:
        """Whether it needs no grant."""
        return sum(chunk_count(part.artifact.size_bytes) for part in self.parts) <= len(self.parts)


class Intake:
    """The offers of all nodes: at most one a node, the newest wins."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._offers: dict[str, Offer] = {}

    # -- offers ---------------------------------------------------------------------------------------------------

    async def offer(self, node: str, message: pb.UpdateOffer) -> None:
        """Take an offer: answers with a receipt (already here), a grant (now or later) or a refusal."""
        digest = hashlib.sha256(message.statement).hexdigest()
        try:
            offer = await self._check(node, digest, message)
            if offer is not None:
                before = self._offers.get(node)
                self._offers[node] = offer
                if before is not None and before.digest != digest:
                    self.released(before.digest)
                await self._take(offer, message)
        except (InvalidUpdate, IdentityError, Conflict, CorruptChunk) as error:
            log.warning("offer refused", node=node, code=error.code, error=str(error))
            self._refuse(node, digest, error.code, str(error))
            self._reject(node, error)
        except CoveyError as error:
            log.warning("offer not taken now", node=node, code=error.code, error=str(error))
            self._refuse(node, digest, error.code, str(error))

    async def _take(self, offer: Offer, message: pb.UpdateOffer) -> None:
        """Go on with a checked offer: record it at once if its bytes are here or came along, else grant the upload."""
        here = {part.artifact.digest for part in offer.parts} - {p.artifact.digest for p in self._missing(offer)}
        data = {part.artifact.digest: part.data for part in message.parts if part.data}
        if all(part.artifact.digest in here or part.artifact.digest in data for part in offer.parts):
            await self._complete(offer, data)
        elif self._env.uploads.request(offer.digest, offer.node, small=offer.small):
            self.granted(offer.digest)

    async def _check(self, node: str, digest: str, message: pb.UpdateOffer) -> Offer | None:
        env = self._env
        statement = _statement(message.statement)
        if statement.node != node or statement.federation != env.federation:
            raise IdentityError("the statement names another node or federation")
        verify(await self._key(node, statement.key), message.statement, message.signature)
        runner = env.current
        expected = runner is not None and runner.run.run == statement.run and runner.expects(node, statement.round)
        if not expected and await self._already_here(statement, digest):
            await self._receipt(node, digest, statement)
            return None
        ready = runner is not None and runner.run.run == statement.run and runner.machine is not None
        if not ready and (await env.store.call(env.store.store.run, statement.run)).state == "running":
            raise NotReady("the coordinator is just taking up this run; offer again")
        if runner is None or not expected:
            raise Late("this round does not take an update of this node any more")
        parts = self._parts(runner, statement, message)
        return Offer(node, digest, statement, bytes(message.statement), bytes(message.signature), parts, runner)

    async def _key(self, node: str, key_id: str) -> bytes:
        """The signing key that the node has now."""
        known = self._env.node_keys.get(node)
        if known is None or known[0] != key_id:
            record = await self._env.store.call(self._env.store.store.node, node)
            known = self._env.node_keys[node] = (record.key_id, record.signing_key)
        if known[0] != key_id:
            raise IdentityError("the statement is not signed with this node's present key")
        return known[1]

    async def _already_here(self, statement: UpdateStatement, digest: str) -> bool:
        store = self._env.store
        for update in await store.call(store.store.updates, statement.run, statement.round):
            if update.node == statement.node and update.digest:
                if update.digest == digest:
                    return True
                raise Conflict("this node has sent another update for this round already")
        return False

    def _parts(
        self, runner: RunBase[Any], statement: UpdateStatement, message: pb.UpdateOffer
    ) -> tuple[PartRecord, ...]:
        prepared, base = runner.ready(), runner.base_of(statement.node, statement.round)
        if statement.base != base.model_sha256:
            raise Conflict("the update was trained from another version than this round's base")
        if not (0 < statement.weight <= MAX_WEIGHT and math.isfinite(statement.weight)):
            raise InvalidUpdate(f"the declared weight {statement.weight} is not in (0, {MAX_WEIGHT:g}]")
        expected = prepared.sent()
        names = [part.name for part in expected]
        if [part.name for part in statement.parts] != names or len(message.parts) != len(names):
            raise InvalidUpdate(f"the update must have exactly the parts {', '.join(names)}")
        records = []
        for part, said, sent in zip(expected, statement.parts, message.parts, strict=True):
            artifact = Artifact(sent.artifact.digest, sent.artifact.size_bytes, bytes(sent.artifact.chunk_sha256))
            _validate(artifact, part.size_bytes)
            wrong = said.bytes != artifact.size_bytes or (part.exact and artifact.size_bytes != part.size_bytes)
            if wrong or said.digest != artifact.digest or said.layout != part.layout:
                raise InvalidUpdate(f"part {said.name!r} does not have the run's layout and size")
            if len(sent.data) not in (0, artifact.size_bytes) or len(sent.data) > INLINE_BYTES:
                raise InvalidUpdate(f"part {said.name!r} came along, but not whole, or it is too large for that")
            if said.codec != part.codec or sent.codec != said.codec or sent.name != said.name:
                raise InvalidUpdate(f"part {said.name!r} does not have the run's codec")
            records.append(PartRecord(said.name, said.codec, artifact))
        return tuple(records)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def granted(self, digest: str) -> None:
        """A slot is free for this offer: tell its node which parts to send, and from where."""
        offer = self._by_digest(digest)
        if offer is None:
            self.released(digest)
            return
        self._env.spawn(self._send_grant(offer))

    async def _send_grant(self, offer: Offer) -> None:
        # In a thread: what a crash left of a file is read and hashed to find where to go on.
        wanted = await asyncio.to_thread(self._offsets, offer)
        offer.moved_at = time.monotonic()
        self._env.spawn(self._watch(offer))
        grant = pb.UploadGrant(update=offer.digest, parts=wanted)
        if not self._env.sessions.send(offer.node, pb.CoordinatorMessage(upload=grant)):
            self.released(offer.digest)

    def _offsets(self, offer: Offer) -> list[pb.PartOffset]:
        files = self._env.files
        return [pb.PartOffset(digest=p.artifact.digest, offset=files.offset(p.artifact)) for p in self._missing(offer)]

    def released(self, digest: str) -> None:
        """Give a slot back, and grant it to whoever waits."""
        for key in self._env.uploads.release(digest):
            self.granted(key)

    async def receive(self, node: str, digest: str, offset: int, stream: AsyncIterator[memoryview]) -> int:
        """Take one part's bytes from `offset` on; returns how many are here when the stream ended."""
        offer = self._offers.get(node)
        part = next((p for p in offer.parts if p.artifact.digest == digest), None) if offer else None
        if offer is None or part is None or not (offer.small or self._env.uploads.holds(offer.digest)):
            raise NotFound("no upload of this file is granted; offer the update first")
        if not self._env.files.has(digest):
            offer.runner.entered(node, NodeState("uploading"))
            await self._receive_part(offer, part.artifact, offset, stream)
        if not self._missing(offer):
            await self._complete(offer)
        return part.artifact.size_bytes

    async def _receive_part(
        self, offer: Offer, artifact: Artifact, offset: int, stream: AsyncIterator[memoryview]
    ) -> None:
        spool = await asyncio.to_thread(self._env.files.begin, artifact)

        def progressed(count: int) -> None:
            if self._offers.get(offer.node) is not offer:
                raise TransferError("this upload was given up: offer the update again")
            offer.moved_at = time.monotonic()
            offer.runner.received(offer.node, count)
            offer.runner.post(TransferProgressed(offer.node, self._env.now()))
            faults.reach("upload-chunk")

        await receive(stream, spool, offset=offset, stall_s=STALL_S, on_progress=progressed)

    async def _complete(self, offer: Offer, data: Mapping[str, bytes] | None = None) -> None:
        """Every part is here, or in `data`: make it durable, record the update, then say so."""
        env, statement = self._env, offer.statement
        try:
            await env.store.call(self._record, offer, data or {})
        except (Conflict, NotFound) as error:
            self._refuse(offer.node, offer.digest, Late.code, str(error))
            return
        finally:
            if self._offers.get(offer.node) is offer:
                self.drop(offer.node)
        faults.reach("update-recorded")
        offer.runner.received(offer.node, sum(map(len, (data or {}).values())))
        await self._receipt(offer.node, offer.digest, statement)
        offer.runner.entered(offer.node, NodeState("received"))
        offer.runner.post(UpdateStored(offer.node, statement.round, env.now()))

    def _record(self, offer: Offer, data: Mapping[str, bytes]) -> None:
        """In the store's thread: files first, then the row; if that came too late, the files go again."""
        if offer.node in self._env.evicted:
            raise Conflict("this node was evicted")
        for part in offer.parts:
            if not self._env.files.has(part.artifact.digest):
                self._env.files.put(part.artifact, data[part.artifact.digest])
        try:
            self._env.store.store.record_update(self._update_of(offer))
        except (Conflict, NotFound):
            wanted = self._env.store.store.referenced_digests()
            self._env.files.release({part.artifact.digest for part in offer.parts} - wanted)
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
            received_at=self._env.now(),
        )

    # -- answers --------------------------------------------------------------------------------------------------

    async def _receipt(self, node: str, digest: str, statement: UpdateStatement) -> None:
        env = self._env
        text = ReceiptStatement(
            federation=env.federation,
            run=statement.run,
            round=statement.round,
            node=node,
            update=digest,
            received_at=env.now(),
        ).to_bytes()
        receipt = pb.Receipt(update=digest, statement=text, signature=env.signing_key.sign(text))
        env.sessions.send(node, pb.CoordinatorMessage(receipt=receipt))

    def _refuse(self, node: str, digest: str, code: str, reason: str) -> None:
        refusal = pb.Refusal(update=digest, code=code, reason=reason)
        self._env.sessions.send(node, pb.CoordinatorMessage(refusal=refusal))

    def _reject(self, node: str, error: CoveyError) -> None:
        """A wrong update of an invited node is its answer for this round."""
        runner = self._env.current
        if runner is None:
            return
        number = runner.open_round(node)
        if runner.collecting(node, number) and not isinstance(error, Conflict):
            runner.post(NodeAnswered(node, number, "rejected", f"{error.code}: {error}", self._env.now()))

    def drop(self, node: str) -> None:
        """The node's offer is void (it may offer again), and its slot is free."""
        self._offers.pop(node, None)
        for key in self._env.uploads.drop(node):
            self.granted(key)

    async def _watch(self, offer: Offer) -> None:
        """Take a grant back from a node that does nothing with it."""
        while self._offers.get(offer.node) is offer:
            await asyncio.sleep(STALL_S / 2)
            if self._offers.get(offer.node) is offer and time.monotonic() - offer.moved_at > STALL_S:
                self.drop(offer.node)
                self._refuse(offer.node, offer.digest, NotReady.code, "no byte came for too long; offer again")

    def _missing(self, offer: Offer) -> list[PartRecord]:
        return [part for part in offer.parts if not self._env.files.has(part.artifact.digest)]

    def _by_digest(self, digest: str) -> Offer | None:
        return next((offer for offer in self._offers.values() if offer.digest == digest), None)


def _statement(raw: bytes) -> UpdateStatement:
    try:
        return UpdateStatement.from_bytes(raw)
    except LimitExceeded as error:
        raise InvalidUpdate(str(error)) from error


def _validate(artifact: Artifact, size_bytes: int) -> None:
    try:
        artifact.validate(size_bytes)
    except LimitExceeded as error:
        raise InvalidUpdate(str(error)) from error
