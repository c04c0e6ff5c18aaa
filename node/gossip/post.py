"""The executor's post on the wire: a try a batch at a time, and the answers to what came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from typing_extensions import override

from covey import faults
from covey.artifact import Artifact
from covey.errors import LedgerError, Obstructed, TransferError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.push_sum.events import Acknowledged, Refused
from covey.node.gossip.diary import Diary
from covey.node.gossip.ports import Clock, Labour, Peers, Post, Said
from covey.node.gossip.work import Spawn

log = structlog.get_logger(room="gossip")
AGAIN_S = 10.0
"""How long a batch that a peer refused is not sent again."""
Key = tuple[Incarnation, int]


class PeerPost(Post[Artifact]):
    """Messages of one executor over the wire between daemons.

    Args:
        peers: The wire.
        labour: Holds the bodies that are being sent.
        spawn: Begins work.
        clock: Time.
        answered: Told of what a peer has, and of what it refuses.
        diary: Notes when each batch was sent.
    """

    def __init__(
        self,
        peers: Peers,
        labour: Labour[Artifact, Any],
        spawn: Spawn,
        clock: Clock,
        answered: Callable[[Acknowledged | Refused], None],
        diary: Diary,
    ) -> None:
        self._diary = diary
        self._peers, self._labour, self._spawn, self._clock, self._answered = peers, labour, spawn, clock, answered
        self._trying: set[Key] = set()
        self._refused: dict[Key, float] = {}
        self._answers: dict[Key, list[asyncio.Future[None]]] = {}
        self._said: dict[Incarnation, int] = {}
        """Number of the newest batch that this node refused."""

    @override
    def tell(self, peer: Incarnation, event: Said) -> None:
        if not faults.is_lost("gossip-word"):
            self._peers.tell(peer, event)

    @override
    def send(self, batch: Batch, step: int, body: Artifact) -> None:
        key = batch.peer, batch.sequence
        if key in self._trying or self._refused.get(key, 0.0) > self._clock.now():
            return
        self._trying.add(key)
        self._labour.hold(body)
        self._spawn(self._try(batch, step, body))

    async def _try(self, batch: Batch, step: int, body: Artifact) -> None:
        key, peer = (batch.peer, batch.sequence), str(batch.peer)
        self._diary.sending(*key, step)
        faults.reach("gossip-sending")
        try:
            await self._bring(batch, step, body)
        except LedgerError as error:
            self._diary.not_sent(*key, f"refused: {error}")
            log.warning("a peer refuses a batch", peer=peer, sequence=batch.sequence, reason=str(error))
            now = self._clock.now()
            paused = {each: until for each, until in self._refused.items() if until > now}  # no more than one an edge
            self._refused = paused | {key: now + AGAIN_S}
            self._answered(Refused(*key))
        except (TransferError, Obstructed) as error:  # or this machine cannot read it now
            self._diary.not_sent(*key, str(error))
            log.debug("a batch did not arrive; it will be sent again", peer=peer, reason=str(error))
        else:
            self._diary.sent(*key)
            faults.reach("gossip-sent")
            self._answered(Acknowledged(*key))
        finally:
            self._trying.discard(key)
            self._labour.release(body)

    async def _bring(self, batch: Batch, step: int, body: Artifact) -> None:
        """Bring a batch over, unless a drill loses it, or the answer to it."""
        if faults.is_lost("gossip-batch"):
            raise TransferError("lost on its way out, as a drill has it")
        await self._peers.send(batch, step, body)
        if faults.is_lost("gossip-answer"):
            raise TransferError("its acknowledgement is lost, as a drill has it")

    # -- answers ----------------------------------------------------------------------------------------------------

    def expect(self, peer: Incarnation, sequence: int) -> asyncio.Future[None]:
        """What a peer is to be answered about a batch that came: done when it is on record, or refused."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.setdefault((peer, sequence), []).append(future)
        return future

    @override
    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        for future in self._answers.pop((peer, sequence), ()):
            if not future.done():
                future.set_result(None)

    @override
    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        if self._said.get(peer) != sequence:
            log.warning("a peer's batch cannot be: nobody waits for it any more", peer=str(peer), reason=reason)
            self._said[peer] = sequence
        for future in self._answers.pop((peer, sequence), ()):
            if not future.done():
                future.set_exception(LedgerError(reason))

    def give_up(self, error: Exception) -> None:
        """Nothing will be put on record any more: all who wait hear so."""
        answers, self._answers = self._answers, {}
        for futures in answers.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
