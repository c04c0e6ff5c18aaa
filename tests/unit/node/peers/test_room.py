"""A node's quota for bodies of peers: what does not fit is refused for now, and stays with its sender."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from covey.driver.background import Background
from covey.errors import NotReady
from covey.gossip.ledger import Batch, Incarnation
from covey.node.gossip.receipts import Receipts
from covey.node.models.holders import Holders
from covey.node.peers.links import Link
from covey.node.peers.receptions import Receptions
from covey.node.peers.room import Quota, Room
from covey.node.peers.translation import mass_message
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.mass_receipts import Notary
from tests.unit.node.peers.hostile import offer_of
from tests.unit.node.peers.swarm import Inbox, artifact, body_of

ADA, BOB = Incarnation("ada"), Incarnation("bob")
SIZE = 1000


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    return ArtifactFiles(tmp_path / "files")


def put(files: ArtifactFiles, seed: int) -> str:
    data = body_of(SIZE, seed)
    files.put(artifact(data), data)
    return str(artifact(data).digest)


def require(room: Room, seed: int, step: int = 0, coming: tuple[str, ...] = ()) -> None:
    room.require(artifact(body_of(SIZE, seed)), step, coming)


def test_bodies_count_until_they_are_gone(files: ArtifactFiles) -> None:
    room = Room(files, Quota(2 * SIZE))
    digests = []
    for seed in (1, 2):
        require(room, seed)
        digests.append(put(files, seed))
    with pytest.raises(NotReady, match="no room: bodies of peers take 2000 bytes here"):
        require(room, 3)
    files.release(digests[:1])
    require(room, 3, coming=())
    with pytest.raises(NotReady):
        require(room, 4, coming=(artifact(body_of(SIZE, 3)).digest,))  # which is still on its way
    require(room, 4)  # it was given up


def test_what_was_on_record_at_the_start_counts_and_none_is_the_least_that_fits(files: ArtifactFiles) -> None:
    digest = put(files, 1)
    with pytest.raises(NotReady):
        require(Room(files, Quota(2 * SIZE - 1, waiting={digest: SIZE})), 2)
    require(Room(files, Quota(2 * SIZE, waiting={digest: SIZE})), 2)
    require(Room(files, Quota()), 2)


def test_bodies_of_later_steps_leave_room_for_those_that_are_waited_for(files: ArtifactFiles) -> None:
    room = Room(files, Quota(2 * SIZE, SIZE, lambda step: step <= 5))
    require(room, 1, step=6)
    put(files, 1)
    with pytest.raises(NotReady):
        require(room, 2, step=6)
    require(room, 2, step=5)


def test_what_broke_off_makes_room(files: ArtifactFiles) -> None:
    broken = artifact(body_of(SIZE, 9))
    spool = files.begin(broken)
    spool.write(memoryview(body_of(SIZE, 9))[:SIZE])
    spool.abandon()
    room = Room(files, Quota(2 * SIZE))
    require(room, 1)
    assert files.unfinished() == {broken.digest}
    put(files, 1)
    require(room, 2)
    assert files.unfinished() == set()


def test_a_body_that_is_a_model_that_stays_here_takes_no_room_for_ever(files: ArtifactFiles) -> None:
    stays = set[str]()
    room = Room(files, Quota(SIZE, stays=stays.__contains__))
    require(room, 1)
    digest = put(files, 1)
    with pytest.raises(NotReady):
        require(room, 2)
    stays.add(digest)  # as nodes that average make the same model
    require(room, 2)


async def test_a_peer_hears_that_there_is_no_room_and_offers_again(identity: Any, tmp_path: Path) -> None:
    holders = Holders(files := ArtifactFiles(tmp_path / "files"))
    inbox = Inbox(holders)
    ada, bob = (Receipts(me, Notary(identity(me.node), "digits")) for me in (ADA, BOB))

    async def never(peer: str, body: object, moved: object) -> None:
        raise AssertionError("bodies come along")

    room = Room(files, Quota(2 * SIZE))
    receptions = Receptions(holders, inbox, never, Background(), range(SIZE, SIZE + 1), bob, room=room)
    link = Link(ADA, "ada")

    async def answer(sequence: int) -> Any:
        data = body_of(SIZE, sequence)
        offer = offer_of(data, sequence=sequence, inline=True).offer
        offer.given.CopyFrom(mass_message(ada.given(Batch(BOB, sequence, 7, 7 * sequence))))
        receptions.offered(link, offer)
        async with asyncio.timeout(60):
            while (message := await link.outbox.get()) is None:
                pass
        return message

    assert [(await answer(sequence)).WhichOneof("kind") for sequence in (1, 2)] == ["acknowledged"] * 2
    for _ in range(2):
        refused = (await answer(3)).refused
        assert (refused.sequence, refused.code) == (3, "not-ready")  # no contradiction: ada keeps the batch open
        assert refused.reason.startswith("no room")
    assert len(inbox.batches) == 2
    holders.release(inbox.batches[0][4])  # bob mixed it in
    assert (await answer(3)).acknowledged.sequence == 3
    assert len(inbox.batches) == 3
