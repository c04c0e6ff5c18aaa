"""How a finished update is delivered: offered until there is a receipt, or a refusal that is final."""

from __future__ import annotations

import asyncio
import random

from covey import messages as msg
from covey.artifact import artifact_of, artifact_of_file
from covey.errors import CorruptChunk, TransferError
from covey.node.assignments.conversation import RETRY_S, STALL_S, Conversation
from covey.node.updates import FinishedUpdate
from covey.wire.identities.signing import ReceiptStatement, verify

FINAL = ("late", "invalid-update", "identity", "conflict", "corrupt-chunk", "not-found")
"""Refusals after which offering again would not help."""


class Delivery:
    """One update's way to the coordinator.

    Args:
        talk: About the update's assignment.
        update: What is to be delivered.
        what: It is called so in the log.
    """

    def __init__(self, talk: Conversation, update: FinishedUpdate, what: str = "update") -> None:
        self._talk, self._services, self._update, self._what = talk, talk.services, update, what

    async def deliver(self) -> bool:
        """Offer until the matter is settled. False: files are wanted that are gone, or damaged, here.

        Raises:
            CorruptChunk: The coordinator asks for a file of another update, or its receipt is for one.
            IdentityError: The receipt is not signed by the coordinator.
            StoreError: A file cannot be read.
        """
        message = self._message()
        if message is None:
            self._talk.log.error("a file of the update was damaged after it was written; it is not sent")
            return False
        self._talk.advanced("offered", self._update.digest)
        while True:
            await self._services.link.connected()
            self._services.link.send(message)
            self._services.metrics.sent.inc(sum(len(part.data) for part in message.parts))
            is_settled = await self._follow()
            if is_settled is not None:
                return is_settled

    def _message(self) -> msg.UpdateOffer | None:
        """The offer; small parts come along. None: one of these is not what was signed."""
        files, update = self._services.files, self._update
        parts = []
        for part in update.parts:
            is_along = update.is_small and files.has(part.artifact.digest)
            data = files.path(part.artifact.digest).read_bytes() if is_along else b""
            if is_along and artifact_of([data] if data else []).digest != part.artifact.digest:
                return None
            parts.append(msg.OfferedPart(part.name, part.codec, part.artifact, data))
        return msg.UpdateOffer(update.statement, update.signature, tuple(parts))

    async def _follow(self) -> bool | None:
        """The answers to one offer; None: offer again."""
        patience_s: float | None = None  # until all was sent
        while (answer := await self._talk.answer_within(patience_s)) is not None:
            match answer:
                case msg.Receipt(update=self._update.digest):
                    return self._received(answer)
                case msg.Refusal(update=self._update.digest):
                    return await self._refused(answer)
                # An offer that was made twice is granted twice: what was sent is not sent again.
                case msg.UploadGrant(update=self._update.digest) if patience_s is None:
                    if not self._has_wanted(answer):
                        return False
                    try:
                        await self._upload(answer)
                        patience_s = STALL_S  # the receipt is due
                    except TransferError as error:
                        if not await asyncio.to_thread(self._is_intact):
                            return False
                        # The receipt, if it broke because another node was giving the same file.
                        patience_s = self._talk.interrupted("upload", error)
        return None

    def _has_wanted(self, grant: msg.UploadGrant) -> bool:
        if not self._update.digests.issuperset(digest for digest, _ in grant.offsets):
            raise CorruptChunk("the coordinator asks for a file that this update does not have")
        return all(self._services.files.has(digest) for digest, _ in grant.offsets)

    def _is_intact(self) -> bool:
        """Whether this node's own files are still what they should be; a damaged one would be refused for ever."""
        files = self._services.files
        return all(artifact_of_file(files.path(part.artifact.digest)) == part.artifact for part in self._update.parts)

    async def _upload(self, grant: msg.UploadGrant) -> None:
        artifacts = {part.artifact.digest: part.artifact for part in self._update.parts}
        for digest, offset in grant.offsets:
            artifact = artifacts[digest]
            if offset > artifact.size_bytes:
                raise CorruptChunk("the coordinator asks for more than this update's file has")
            meter = self._talk.meter("uploading", offset, artifact, "node-upload-chunk")
            await self._services.bulk.upload(self._services.files.path(digest), artifact, offset, meter)

    async def _refused(self, refusal: msg.Refusal) -> bool | None:
        self._talk.log.warning(f"{self._what} refused", code=refusal.code, reason=refusal.reason)
        if refusal.code not in FINAL:
            await self._services.clock.sleep(RETRY_S * (2 + random.random()))
            return None
        self._settle("refused")
        return True

    def _received(self, receipt: msg.Receipt) -> bool:
        verify(self._services.identity.coordinator_key, receipt.statement, receipt.signature)
        if ReceiptStatement.from_bytes(receipt.statement).update != self._update.digest:
            raise CorruptChunk("the receipt is for another update")
        self._services.store.keep_receipt(self._update.run, receipt.statement, receipt.signature)
        self._talk.log.info(f"{self._what} delivered")
        self._settle("received")
        return True

    def _settle(self, outcome: str) -> None:
        self._talk.ended(outcome)
        self._talk.advanced("settled", self._update.digest)
