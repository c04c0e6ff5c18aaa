"""Delivery: offered until there is a receipt or a final refusal, whatever comes between."""

import asyncio
import hashlib

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import CorruptChunk, IdentityError
from covey.node.assignments import conversation
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.offer import Delivery
from covey.node.updates import FinishedUpdate
from covey.parts import PartFile
from covey.wire.identities.signing import UpdateStatement
from tests.unit.node.memory import NODE_KEY, assignment

BIG = b"x" * 200_000


@pytest.fixture
def delivery(node):
    """Delivers an update with these parts; what was said about it."""

    def delivery(*contents):
        parts = []
        for index, content in enumerate(contents):
            artifact = artifact_of([content])
            node.files.put(artifact, content)
            parts.append(PartFile(f"part{index}", "none", artifact))
        talk = Conversation(node.services, assignment(), lambda stage, update: None)
        node.coordinator.listen(talk.answered)
        return Delivery(talk, update_of(*parts)), talk

    return delivery


def update_of(*parts):
    raw = UpdateStatement("f", "r", 1, "n0", NODE_KEY.key_id, "b" * 64, (), 1.0, {}).to_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    return FinishedUpdate("r", 1, "b" * 64, digest, raw, NODE_KEY.sign(raw), parts)


def offers(node):
    return node.coordinator.of(msg.UpdateOffer)


async def test_small_parts_come_along_and_large_ones_do_not(node, delivery):
    assert await delivery(b"ab", b"cd")[0].deliver()
    assert [part.data for part in offers(node)[0].parts] == [b"ab", b"cd"]
    assert await delivery(b"ab", BIG)[0].deliver()
    assert [part.data for part in offers(node)[1].parts] == [b"", b""]
    assert set(node.coordinator.received.values()) == {b"ab", BIG}


async def test_what_was_sent_is_not_sent_again_for_a_grant_that_came_twice(node, delivery):
    node.coordinator.answers = False
    sending, talk = delivery(BIG)
    work = asyncio.create_task(sending.deliver())
    await node.until(lambda: offers(node))
    digest = artifact_of([BIG]).digest
    node.coordinator._offered = offers(node)[0]
    receipt = node.coordinator.receipt(offers(node)[0])
    node.coordinator.listen(lambda message: None)
    grant = msg.UploadGrant(receipt.update, ((digest, 0),))
    for answer in (grant, grant, receipt):
        talk.answered(answer)
    assert await work
    assert node.coordinator.offsets == [0]


async def test_a_broken_upload_is_offered_again_and_goes_on_where_it_is_granted(node, delivery, monkeypatch):
    monkeypatch.setattr(conversation, "RETRY_S", 0.02)
    node.coordinator.breaks = 2
    assert await delivery(BIG)[0].deliver()
    assert len(offers(node)) == 3
    assert node.outcomes() == {"received": 1.0}


async def test_an_upload_that_breaks_since_another_node_gave_the_same_file_is_not_begun_again(node, delivery):
    """The other one's stream takes over; the receipt comes as soon as the file is there, and is noted at once."""
    node.coordinator.answers, node.coordinator.breaks = False, 1
    sending, talk = delivery(BIG)
    work = asyncio.create_task(sending.deliver())
    await node.until(lambda: offers(node))
    receipt = node.coordinator.receipt(offers(node)[0])
    talk.answered(msg.UploadGrant(receipt.update, ((artifact_of([BIG]).digest, 0),)))
    await node.until(lambda: not node.coordinator.breaks)
    talk.answered(receipt)
    assert await work
    assert len(offers(node)) == 1
    assert node.outcomes() == {"received": 1.0}


async def test_a_damaged_file_is_not_offered_for_ever(node, delivery):
    sending, _ = delivery(BIG)
    node.files.path(artifact_of([BIG]).digest).write_bytes(b"y" * len(BIG))
    node.coordinator.breaks = 1
    assert not await sending.deliver()


async def test_a_small_file_that_was_damaged_is_not_sent_at_all(node, delivery):
    sending, _ = delivery(b"ab", b"cd")
    node.files.path(artifact_of([b"cd"]).digest).write_bytes(b"cX")
    assert not await sending.deliver()
    assert offers(node) == []


async def test_a_refusal_that_is_not_final_is_waited_out(node, delivery):
    node.coordinator.refusals = ["not-ready", "not-ready"]
    assert await delivery(b"ab")[0].deliver()
    assert len(offers(node)) == 3
    assert all(1.0 <= seconds <= 1.5 for seconds in node.clock.slept)
    assert node.outcomes() == {"received": 1.0}


@pytest.mark.parametrize("code", ["late", "invalid-update", "identity", "conflict", "corrupt-chunk", "not-found"])
async def test_a_final_refusal_ends_it(node, delivery, code):
    node.coordinator.refusals = [code]
    assert await delivery(b"ab")[0].deliver()
    assert len(offers(node)) == 1
    assert node.outcomes() == {"refused": 1.0}


@pytest.mark.parametrize(
    ("offsets", "message"), [((("0" * 64, 0),), "does not have"), (((artifact_of([b"ab"]).digest, 3),), "")]
)
async def test_what_no_coordinator_may_ask(node, delivery, offsets, message):
    node.coordinator.answers = False
    sending, talk = delivery(b"ab")
    work = asyncio.create_task(sending.deliver())
    await node.until(lambda: offers(node))
    digest = node.coordinator.receipt(offers(node)[0]).update
    talk.answered(msg.UploadGrant(digest, offsets))
    if message:
        with pytest.raises(CorruptChunk, match=message):
            await work
        return
    await node.until(lambda: len(offers(node)) == 2)  # more than there is: taken for a broken transfer
    work.cancel()


async def test_a_receipt_must_be_signed_and_for_this_update(node, delivery):
    node.coordinator.answers = False
    for change, error in ((b"", CorruptChunk), (b"!", IdentityError)):
        sending, talk = delivery(b"ab")
        work = asyncio.create_task(sending.deliver())
        await node.until(lambda: node.coordinator.heard)
        offer = node.coordinator.heard.pop()
        other = UpdateStatement("f", "r", 9, "n0", NODE_KEY.key_id, "b" * 64, (), 1.0, {}).to_bytes()
        receipt = node.coordinator.receipt(msg.UpdateOffer(other, NODE_KEY.sign(other), ()))
        digest = node.coordinator.receipt(offer).update
        talk.answered(msg.Receipt(digest, receipt.statement + change, receipt.signature))
        with pytest.raises(error):
            await work
    assert node.outcomes() == {}
