"""Files on their way to nodes: who may download which, in turn, and no longer than others can wait."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import structlog

from covey import faults
from covey import messages as msg
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.nodes.spread import MOST_HOLDERS, Spread
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.assignments import is_small
from covey.coordinator.runs.offers import LOOK_S, STALL_S
from covey.coordinator.runs.sent_again import Resent
from covey.driver.background import Background
from covey.errors import Conflict, NotFound, TransferError
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord
from covey.wire.identities.model_pass import DOMAIN, ModelPass
from covey.wire.identities.signing import SigningKey
from covey.wire.transfers.chunks import decode
from covey.wire.transfers.grants import Grants
from covey.wire.transfers.lanes import Lane
from covey.wire.transfers.streams import ONLY, serve_download

log = structlog.get_logger(room="coordinator")
Permit = Callable[[str, str, str], tuple[bytes, bytes]]
WRONG_BYTES = "wrong-model-bytes"
"""Kind of the event of a node that gave another one wrong bytes of a model; its detail is `{"to": NODE}`."""
REMEMBERED = 1024
"""Transfers that broke."""


@dataclass(eq=False)
class _Streams:
    """The calls over which one granted file goes out."""

    count: int
    reached: int
    """Where the file is, if all that was given to them arrives, in bytes."""
    begun: set[int] = field(default_factory=set)
    going: int = 0


class Downloads:
    """All downloads of one coordinator.

    Args:
        runs: They say which file a node is served.
        files: Where the files are.
        sessions: Over which a node is told that it may begin.
        background: Where grants are watched.
        permit: Signs that a node may have a file of a run from other nodes: (run, node, digest).
    """

    def __init__(
        self, runs: ActiveRuns, files: ArtifactFiles, sessions: Sessions, background: Background, permit: Permit
    ) -> None:
        self._runs, self._files, self._sessions, self._background = runs, files, sessions, background
        self._permit, self._spread = permit, Spread()
        self._grants: Grants[tuple[str, str]] = Grants()
        """By (node, digest)."""
        self._downloading: dict[tuple[str, str], _Streams] = {}
        self._reached: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Of transfers that broke: how far they had come."""
        self._watched: set[tuple[str, str]] = set()
        self._without_table: set[tuple[str, str]] = set()
        """Node and file, where the grant has to bring the chunks' digests."""

    def holds(self, node: str, digest: str) -> bool:
        """Whether a node has a grant for a file now."""
        return self._grants.holds((node, digest))

    def asked(self, node: str, ask: msg.DownloadAsk) -> None:
        """A node asks for a place in the queue of downloads."""
        digest = ask.digest
        if self._runs.served(node, digest) is None:
            return  # an old base: its work was cancelled, or will be
        self._forget_idle(node)
        if ask.with_table:
            self._without_table.add((node, digest))
        elif self._have_peers_give(node, ask):
            return
        if self._grants.request((node, digest), node, now=time.monotonic()):
            self._send_grants([(node, digest)])

    # -- from other nodes -------------------------------------------------------------------------------------------

    def _have_peers_give(self, node: str, ask: msg.DownloadAsk) -> bool:
        """Whether a node that asks is sent to others that have the file, or waits for them."""
        served = self._runs.served(node, ask.digest)
        if served is None or is_small(served[1]) or served[0].ready().spec.exchange.models != "peers":
            return False
        run, lends = served[0].run.run, self._address(node) != ""
        if not ask.takes_peers:
            self._spread.gave_up(run, ask.digest, node, lends=lends)
            return False
        reachable = [name for name in self._sessions.nodes() if self._address(name)]
        answer = self._spread.asked(run, ask.digest, node, time.monotonic(), lends=lends, reachable=reachable)
        if isinstance(answer, tuple):
            members = [member for name in answer if (member := self._sessions.peer(name)) is not None]
            self._sessions.send(
                node, msg.ModelElsewhere(ask.digest, tuple(members), *self._permit(run, node, ask.digest))
            )
        return answer != "grant"

    def _address(self, node: str) -> str:
        member = self._sessions.peer(node)
        return member.address if member is not None else ""

    def reported(self, node: str, report: msg.ModelReport) -> list[str]:
        """A node says what became of a file; who gave it wrong bytes, and is not used again in this run."""
        digest, liars = report.digest[:64], report.liars[:MOST_HOLDERS]
        new, waiting = self._spread.reported(digest, node, liars, is_lent=report.is_lent)
        for name in waiting:
            self.asked(name, msg.DownloadAsk(digest, takes_peers=True))
        return new

    def _lost(self, node: str) -> None:
        for name, digest in self._spread.lost(node):
            self.asked(name, msg.DownloadAsk(digest, takes_peers=True))

    # -- from here --------------------------------------------------------------------------------------------------

    def drop(self, node: str) -> None:
        """A node's session ended: it asks again."""
        self._lost(node)
        self._forget_idle(node)
        self._without_table = {key for key in self._without_table if key[0] != node}
        self._send_grants(self._grants.drop(node))

    def _forget_idle(self, node: str) -> None:
        """A download of which no call is going on, and some never came, begins anew."""
        for key in [key for key, streams in self._downloading.items() if key[0] == node and not streams.going]:
            del self._downloading[key]

    def _send_grants(self, keys: list[tuple[str, str]]) -> None:
        for node, digest in keys:
            if (node, digest) not in self._watched:
                self._watched.add((node, digest))
                self._background.spawn(self._watch_download((node, digest)))
            if not self._sessions.send(node, self._grant(node, digest)):
                self._send_grants(self._grants.release((node, digest)))

    def _grant(self, node: str, digest: str) -> msg.DownloadGrant:
        """With the chunks' digests, where the node asked for them."""
        wanted = (node, digest) in self._without_table
        self._without_table.discard((node, digest))
        served = self._runs.served(node, digest) if wanted else None
        return msg.DownloadGrant(digest, served[1].chunk_sha256 if served is not None else b"")

    async def stream(self, node: str, digest: str, offset: int, lane: Lane = ONLY) -> AsyncGenerator[bytes, None]:
        """Stream a file that a node is served from an offset, or one connection's share of it.

        Raises:
            NotFound: It is not served this file, or was not granted it.
            Conflict: It does so already.
            TransferError: Others wait.
        """
        key = (node, digest)
        streams: _Streams | None = None
        is_whole = False
        try:
            served = self._runs.served(node, digest)
            if served is None:
                raise NotFound("only the base model of this node's open round can be downloaded")
            run, artifact = served
            if not is_small(artifact) and not self._grants.holds(key):
                raise NotFound("this download is not granted; ask for it in the session")
            streams = self._begin(key, lane, run, offset)
            path = self._files.path(digest)
            if not await asyncio.to_thread(self._files.check, digest):
                raise NotFound("the coordinator's file is damaged or missing; its operator must restore a backup")
            async for chunk in serve_download(path, artifact, offset, lane):
                faults.reach("download-chunk")
                if not is_small(artifact) and not self._grants.holds(key):
                    raise TransferError("others wait: ask again, and go on where this ended")
                self._grants.moved(key, len(chunk), time.monotonic())
                run.progress.sent(node, len(chunk))
                streams.reached += len(decode(chunk))
                yield chunk
            is_whole = True
        finally:
            self._ended(key, streams, is_whole=is_whole)

    def _begin(self, key: tuple[str, str], lane: Lane, run: ActiveRun, offset: int) -> _Streams:
        streams = self._downloading.get(key)
        if streams is None:
            streams = self._downloading[key] = _Streams(lane.count, offset)
            before = self._reached.pop(key, 0)
            if before > offset:
                run.resent(key[0], Resent(down=before - offset))
        if streams.count != lane.count or lane.index in streams.begun:
            raise Conflict("this download is in progress already")
        streams.begun.add(lane.index)
        streams.going += 1
        return streams

    def _ended(self, key: tuple[str, str], streams: _Streams | None, *, is_whole: bool) -> None:
        """One call has ended: with the last one, or with one that broke, the grant is used up."""
        if streams is None:
            if key not in self._downloading:
                self._send_grants(self._grants.release(key))
            return
        streams.going -= 1
        if self._downloading.get(key) is not streams:
            return
        if is_whole and (streams.going or len(streams.begun) < streams.count):
            return
        del self._downloading[key]
        if is_whole:
            self._grants.succeeded(key[0])
        else:
            self._reached[key] = streams.reached
            if len(self._reached) > REMEMBERED:
                self._reached.popitem(last=False)
        self._send_grants(self._grants.release(key))

    async def _watch_download(self, key: tuple[str, str]) -> None:
        """Take a grant back from a node that does nothing with it, or keeps others waiting for too long."""
        try:
            await self._hold_to_its_turn(key)
        finally:
            self._watched.discard(key)

    async def _hold_to_its_turn(self, key: tuple[str, str]) -> None:
        began = time.monotonic()
        while self._grants.holds(key):
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            streams = self._downloading.get(key)
            # A stream that stalls ends by itself.
            if (streams is None or not streams.going) and now - began > STALL_S:
                self._downloading.pop(key, None)
                self._send_grants(self._grants.release(key))
            elif self._grants.overdue(key, now):
                log.info("download interrupted: others wait", node=key[0])
                self._send_grants(self._grants.take_back(key))


def wrong_bytes(run: str, liar: str, by: str, at: float) -> EventRecord:
    """What is put on record of a node that gave another one wrong bytes, as that one says."""
    return EventRecord(at, WRONG_BYTES, run=run[:200], node=liar, detail={"to": by})


def permits(federation: str, key: SigningKey) -> Permit:
    """Signs, for a coordinator, that a node may have a file of a run from other nodes."""

    def permit(run: str, node: str, digest: str) -> tuple[bytes, bytes]:
        statement = ModelPass(federation, run, node, digest).to_bytes()
        return statement, key.sign(statement, DOMAIN)

    return permit
