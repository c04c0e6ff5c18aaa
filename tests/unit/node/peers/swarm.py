"""Nodes of a run in one event loop, over real connections: what each heard and got is in lists."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from covey.artifact import artifact_of
from covey.errors import CoveyError, LedgerError, TransferError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import PeerEvicted, PeerSuspected, PeerTrusted, Progressed
from covey.node.gossip.receipts import Receipts
from covey.node.models.holders import Holders
from covey.node.peers.calls import PeerCalls, bring_notice
from covey.node.peers.lives import Part
from covey.node.peers.network import PeerNetwork, PeerSettings
from covey.node.peers.roster import Member, Roster
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.evictions import ONCE, EvictionStatement, sign_eviction
from covey.wire.mass_receipts import Notary

CHUNK = 1 << 20
SPEC = "5" * 64
WAIT_S = 20.0


def body_of(size_bytes, seed=1):
    data = bytes((seed + place * 7) % 251 for place in range(251)) * (size_bytes // 251 + 1)
    return data[:size_bytes]


def artifact(data):
    return artifact_of([data[start : start + CHUNK] for start in range(0, len(data), CHUNK)])


class Inbox:
    """A receiver that keeps, and holds, what it is given; `refusing` is a reason to refuse every batch."""

    def __init__(self, holders=None):
        self._holders = holders
        self.batches, self.events, self.refusing = [], [], ""
        self._changed = asyncio.Condition()

    async def arrived(self, peer, sequence, units, step, body):
        if self.refusing:
            raise LedgerError(self.refusing)
        if self._holders is not None:
            self._holders.hold(body.digest)
        self.batches.append((peer, sequence, units, step, body.digest))
        await self._tell()

    def heard(self, peer, event):
        self.events.append(event)
        self._task = asyncio.ensure_future(self._tell())

    async def _tell(self):
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    def of(self, kind):
        return [event.peer for event in self.events if isinstance(event, kind)]


class Node:
    """One node: its wire, its files, and what it heard."""

    def __init__(
        self,
        name,
        identity,
        roster,
        folder,
        *,
        size_bytes,
        listen="127.0.0.1:0",
        relay="",
        number=1,
        holdings=None,
        newest=None,
        kept=(),
        clock=time.monotonic,
        account=None,
        **part,
    ):
        self.files, self.folder = ArtifactFiles(folder / "files"), folder
        self.holders = Holders(self.files)
        self.me, self.inbox = Incarnation(name, number), Inbox(self.holders)
        self.receipts = Receipts(self.me, Notary(identity, part.get("run", "digits")), kept)
        fields: dict = {"run": "digits", "specification": SPEC, "minted": ONE if number == 1 else 0} | part
        settings = PeerSettings(
            Part(self.me, **fields),
            identity,
            roster,
            folder,
            size_bytes if isinstance(size_bytes, range) else range(size_bytes, size_bytes + 1),
            self.receipts,
            listen=listen,
            beat_s=0.2,
            relay=relay,
            newest=newest,
            account=account,
        )
        self.network = PeerNetwork(settings, self.holders, self.inbox, clock, holdings)

    def put(self, data):
        made = artifact(data)
        self.files.put(made, data)
        return made

    async def send(self, other, sequence, body, units=7):
        await self.network.send(Batch(other.me, sequence, units, sequence * units), 3, body)

    async def send_until_there(self, other, sequence, body):
        """Send as an executor does: again and again, whatever breaks; how often it was tried."""
        for attempt in range(1, 1000):
            try:
                await self.send(other, sequence, body)
                return attempt
            except TransferError:
                await asyncio.sleep(0.05)
        raise AssertionError("it never came")

    def say(self, other, step, applied=0):
        self.network.tell(other.me, Progressed(self.me, step, 0, 0, applied, False, 0.0))

    async def meets(self, *others):
        for other in others:
            await self.inbox.until(lambda other=other: other.me in self.inbox.of(PeerTrusted))

    async def suspects(self, other):
        await self.inbox.until(lambda: other.me in self.inbox.of(PeerSuspected))

    async def hears_evicted(self, who):
        await self.inbox.until(lambda: who in self.inbox.of(PeerEvicted))


class Swarm:
    """Makes nodes of one run; ends them all."""

    def __init__(self, identity, tmp_path, size_bytes):
        self._identity, self._path, self.size_bytes = identity, tmp_path, size_bytes
        self._members, self._exits, self._made = {}, contextlib.AsyncExitStack(), 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._exits.aclose()

    def reach(self, name, address, fingerprint=""):
        """From now on others have this address of a node, and this key."""
        self._members[name] = Member(name, address, fingerprint)

    def member(self, name):
        return self._members[name]

    async def start(self, name, *, listens=True, knows=(), pins=None, **options):
        """A node of the run of ada, bob and cyd; it has the addresses of those in `knows`, and the keys of `pins`."""
        members = {other: Member(other) for other in ("ada", "bob", "cyd")} | {o: self._members[o] for o in knows}
        pinned = {other: replace(it, fingerprint=(pins or {}).get(other, "")) for other, it in members.items()}
        self._made += 1
        node = Node(
            name,
            self._identity(name),
            Roster(pinned),
            self._path / f"data-{self._made}",
            size_bytes=self.size_bytes,
            **({} if listens else {"listen": ""}) | options,
        )
        self._exits.push_async_callback(node.network.stop)
        self._members[name] = Member(name, await node.network.start())
        return node

    async def refusal(self, node, name, fingerprint=""):
        """What a node is told that calls another one and gets no link."""
        calls = PeerCalls(
            replace(self._members[name], fingerprint=fingerprint),
            lambda: self._identity(node.me.node),
            node.network.hub,
        )
        try:
            await calls.link()
        except CoveyError as error:
            return str(error)
        finally:
            await calls.close()
        raise AssertionError("there was a link")

    async def evict(self, who, admin, *, at, kind=ONCE):
        """Sign a notice, and bring it to a node; whether it was new there."""
        said = admin.federation, "digits", who.node, who.number, "lost its disk", time.time()
        statement = EvictionStatement(*said, covey=kind)
        notice = sign_eviction(statement, admin.key_pem, admin.certificate_pem)
        return await bring_notice(notice, self._members[at], admin)
