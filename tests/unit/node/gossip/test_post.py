"""When a batch that a peer refused is offered again."""

from __future__ import annotations

import asyncio

from covey.artifact import Artifact, artifact_of
from covey.errors import LedgerError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.push_sum.events import Acknowledged, Refused
from covey.node.gossip.diary import Diary
from covey.node.gossip.post import AGAIN_S, PeerPost

ADA, BOB = Incarnation("ada"), Incarnation("bob")


class Refusing:
    """A wire to peers that refuse every batch; it also holds bodies, and tells the time."""

    def __init__(self) -> None:
        self.tried: list[Incarnation] = []
        self.time = 100.0

    async def send(self, batch: Batch, step: int, body: Artifact) -> None:
        self.tried.append(batch.peer)
        raise LedgerError("it cannot be")

    def hold(self, body: Artifact) -> Artifact:
        return body

    def release(self, body: Artifact) -> None:
        pass

    def now(self) -> float:
        return self.time


async def test_each_of_two_peers_that_refuse_is_left_alone_for_its_own_pause() -> None:
    wire, answers, body = Refusing(), list[Acknowledged | Refused](), artifact_of([b"model"])
    tasks: list[asyncio.Task[None]] = []
    post = PeerPost(
        wire,  # type: ignore[arg-type]
        wire,  # type: ignore[arg-type]
        lambda work: tasks.append(asyncio.ensure_future(work)),
        wire,
        answers.append,
        Diary(lambda: 0),
    )

    async def beat() -> None:
        for peer in (ADA, BOB):
            post.send(Batch(peer, 1, 7, 7), 0, body)
        await asyncio.gather(*tasks)

    for wire.time in (100.0, 101.0, 102.0, 99.9 + AGAIN_S):
        await beat()
    assert wire.tried == [ADA, BOB]
    assert answers == [Refused(ADA, 1), Refused(BOB, 1)]
    wire.time = 100.0 + AGAIN_S
    await beat()
    assert wire.tried == [ADA, BOB] * 2
