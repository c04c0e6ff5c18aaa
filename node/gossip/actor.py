"""A node's part in a gossip run, from its record on: the executor with its ports, told what comes over the wire."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec

import structlog
from sqlalchemy import Engine
from typing_extensions import override

from covey.artifact import Artifact
from covey.driver.ending import end, heed
from covey.errors import CoveyError, NotFound, NotReady, Obstructed, RunFailed, StoreError, TransferError
from covey.gossip.agreement import OrderTold, WaysMeasured
from covey.gossip.ledger import Incarnation
from covey.gossip.planning import Planner
from covey.gossip.protocols.encoding import is_encoded
from covey.gossip.protocols.runs import policy_of
from covey.gossip.push_sum.events import Arrived, Event, LeaveAsked, PeerLeft, PeerSuspected, Progressed
from covey.gossip.push_sum.machine import PushSum
from covey.layout import Layout
from covey.node.gossip.adversary import AdversaryPost, PeerAttack
from covey.node.gossip.diary import Diary, Span
from covey.node.gossip.executor import Executor, Ports
from covey.node.gossip.folders import LEAVE
from covey.node.gossip.holdings import ModelShelf
from covey.node.gossip.obstacles import Obstacles
from covey.node.gossip.ports import Clock, Heard, ModelSource, Peers, Receiver
from covey.node.gossip.post import PeerPost
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.database import Durability
from covey.node.gossip.record.models import Keeping
from covey.node.gossip.record.reader import RunFacts, digests_of, read_saved
from covey.node.gossip.record.writer import SqliteRecord, StepFacts
from covey.node.gossip.work import Course, WorkerLabour
from covey.node.models.holders import Holders
from covey.node.operator.config import NodeConfig
from covey.node.ports import Files, Worker
from covey.node.services import SystemClock
from covey.worker.jobs.training import TrainResult

P = ParamSpec("P")
log = structlog.get_logger(room="gossip")
RECORD, JOIN, DROP = "record", "join", "drop"
BEAT_S = 1.0
"""How often a node says where it is, and sends again what is not acknowledged."""
AWAY_S = 120.0
"""How long a node that is through waits for peers that are away and may not know it; and, after a start, to hear from
one before it counts as away."""
FAREWELL_S = 10.0
"""How long a node that left says so to its peers, before it ends."""


@dataclass(frozen=True)
class Surroundings:
    """What an actor works in.

    Attributes:
        config: What the operator allows.
        holders: Of the run's files on this node.
        worker: The node's.
        planner: The run's topology and mixing weights.
        course: What jobs share.
        facts: The run on record.
        engine: Of the record.
        folder: Of the run on this node.
        receipts: What nodes sign to each other about their mass.
        durability: What acknowledged things survive.
        attack: What it sends instead, in a drill; None: it is honest.
        clock: Time.
        beat_s: How often to say where the node is.
        farewell_s: How long to say that it has left.
        away_s: How long to wait for peers that are away.
    """

    config: NodeConfig
    holders: Holders[Files]
    worker: Worker
    planner: Planner
    course: Course
    facts: RunFacts
    engine: Engine
    folder: Path
    receipts: Receipts
    durability: Durability = "process"
    attack: PeerAttack | None = None
    clock: Clock = field(default_factory=SystemClock)
    beat_s: float = BEAT_S
    farewell_s: float = FAREWELL_S
    away_s: float = AWAY_S


class GossipActor(Receiver):
    """One incarnation of this node. Everything happens on the event loop.

    Args:
        world: What it works in.
        stays: Whether it goes on to answer peers when all is done, until it is stopped.
    """

    def __init__(self, world: Surroundings, *, stays: bool = False) -> None:
        self._world, self._stays = world, stays
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._executor: Executor[Artifact, TrainResult] | None = None
        self._diary, self._obstacles = Diary(lambda: self.executor.machine.step), Obstacles()
        beside = (self._spawn, self._diary, self._obstacles)
        ports = (world.config, world.holders, world.worker)
        self._labour = WorkerLabour(world.course, *ports, *beside, synced=world.durability == "power")
        world.holders.told = functools.partial(self._obstacles.now, DROP)
        self._saved = read_saved(world.engine)
        self._needed = {*digests_of(self._saved), *([world.facts.first.digest] if world.facts.first else [])}
        for digest in self._needed:  # before peers are heard, who may offer the same
            world.holders.hold(digest)
        self.keeping = Keeping(world.engine, world.course.spec.gossip.keep_every, self._labour.hold)
        self._record: SqliteRecord | None = None
        self._post: PeerPost | None = None
        self._adversary: AdversaryPost[Artifact] | None = None
        self._early: list[tuple[Incarnation, Heard]] = []
        self.shelf = ModelShelf(world.holders, self._newest)
        self._awaited, self._unanswered = list[Incarnation](), list[Incarnation]()

    @property
    def executor(self) -> Executor[Artifact, TrainResult]:
        """The executor. Raises RuntimeError before `run`."""
        if self._executor is None:
            raise RuntimeError("the node's part has not begun")
        return self._executor

    @property
    def has_begun(self) -> bool:
        """Whether there is an executor."""
        return self._executor is not None

    @property
    def is_done(self) -> bool:
        """Whether its part is over; it may still answer peers."""
        return self.has_begun and bool(self.executor.finished)

    @property
    def obstacle(self) -> str:
        """What is in this machine's way now; empty: nothing."""
        return self._obstacles.reason

    @property
    def measured(self) -> dict[str, float]:
        """What the newest training measured."""
        return self._labour.metrics

    @property
    def under_way(self) -> list[Span]:
        """Batches that are being sent."""
        return self._diary.under_way

    def _newest(self, peer: Incarnation) -> tuple[Artifact, int]:
        if self._executor is None or not self._executor.is_up or self._world.course.own_models:
            raise NotReady("this node is just starting, or stopping, or nodes of this run keep models of their own")
        if peer.number == 1 or peer in self._executor.ledger.into:
            raise NotFound("a model is given to nodes that join: this one takes part already")
        if is_encoded(self._world.course.spec):  # what it publishes is no model to begin with
            return self._executor.model, self._executor.machine.step
        return self._executor.newest()

    # -- the wire ---------------------------------------------------------------------------------------------------

    @override
    async def arrived(self, peer: Incarnation, sequence: int, units: int, step: int, body: Artifact) -> None:
        if self._executor is None or not self._executor.is_up or self._post is None or self._over.done():
            raise TransferError("this node is just starting, or stopping: send again")
        holders = self._world.holders
        with holders.holding(body.digest):
            if not holders.files.has(body.digest):
                raise TransferError("the body is not here any more: send again")
            if (kept := self._world.receipts.of(peer, sequence)) is None:  # only what its sender signed counts
                raise TransferError("the peer has offered another batch since: offer this one again")
            event = Arrived(peer, sequence, units, step, self._world.clock.now(), kept.receipt.units)
            answer = self._post.expect(peer, sequence)
            with self._diary.taking(peer, sequence, step):
                self._take(peer, event, body)
                await answer
            if self._adversary is not None:
                self._adversary.saw(peer, body)

    @override
    def heard(self, peer: Incarnation, event: Heard) -> None:
        if self._executor is None:
            self._early.append((peer, event))
        elif isinstance(event, WaysMeasured | OrderTold):
            if self._world.planner.agreement is not None:
                self._world.planner.agreement.heard(event, self._executor.machine.reachable)
        elif event.peer == peer:
            if isinstance(event, Progressed | PeerLeft):
                self._diary.sent(peer, event.applied)
            if isinstance(event, PeerLeft):
                event = replace(event, signed=self._world.receipts.signed_by(peer))
            self._take(peer, event)
            if isinstance(event, Progressed) and self._executor.farewells.heard(event) and self._executor.finished:
                self._safely(self._executor.say, peer)

    def _take(self, peer: Incarnation, event: Event, body: Artifact | None = None) -> None:
        claims = self.executor.machine.exchange.contradictions
        is_news = peer not in claims
        self._safely(self.executor.take, event, body)
        if is_news and peer in claims:
            log.warning("a peer claims what it does not prove", peer=str(peer), claim=claims[peer])

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self, peers: Peers, stop: asyncio.Event, models: ModelSource | None = None) -> str:
        """Take part until all is done, or `stop` is set; how it ended: completed, left, evicted, retired or stopped.

        Args:
            peers: The wire.
            stop: Ends it.
            models: Where it has a model from if it joins; None: nowhere, it begins with the first one.

        Raises:
            CoveyError: The node cannot go on; the message says why.
        """
        world, loop = self._world, asyncio.get_running_loop()
        beside = (self._step_facts, self._failed, self._diary, world.receipts)
        told = functools.partial(self._obstacles.now, RECORD), self.keeping, self._sha256
        self._record = SqliteRecord(world.engine, world.durability, loop.call_soon_threadsafe, *beside, *told)
        ways = (peers, self._labour, self._spawn, world.clock)
        self._post = PeerPost(*ways, lambda event: self._safely(self.executor.take, event), self._diary)
        if world.attack is not None:
            log.warning("DRILL: this node is an adversary", attack=world.attack.name, options=world.attack.options)
            self._adversary = AdversaryPost(self._post, world.attack, self._labour)
        self._executor = self._restored()
        beating = asyncio.create_task(self._beat(peers, models))
        stopped = asyncio.create_task(stop.wait())
        try:
            ends: list[asyncio.Future[Any]] = [beating, stopped, self._over]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._over.done():
                self._over.result()
            elif beating.done():
                beating.result()
            return self.executor.finished if not stopped.done() or self.is_done else "stopped"
        finally:
            await end([beating, stopped, *self._tasks])
            self._post.give_up(TransferError("this node stops: send again when it is back"))
            self.executor.stop()
            self.shelf.close()
            self._record.note_rest()
            await asyncio.to_thread(self._record.close)

    def _restored(self) -> Executor[Artifact, TrainResult]:
        world = self._world
        facts = world.facts
        if facts.first is None or self._post is None or self._record is None:
            raise StoreError("the run's first model is not on record")
        spec, nodes = world.course.spec, world.course.nodes
        policy = policy_of(spec.gossip, nodes, allow_path=world.config.allows_paths(spec))
        fresh = PushSum(facts.me, policy, facts.peers, facts.minted)
        ports = Ports(self._adversary or self._post, self._labour, self._record, world.clock, world.planner)
        executor = Executor.restored(self._saved, fresh, facts.first, ports, self._ended)
        for digest in self._needed:  # it holds what it goes on from
            world.holders.release(digest)
        return executor

    async def _beat(self, peers: Peers, models: ModelSource | None) -> None:
        """Say where this node is; begin when enough peers are there; end when nobody needs it any more."""
        executor, early = self.executor, self._early
        self._early = []
        for peer, event in early:
            self.heard(peer, event)
        has_begun = executor.machine.phase != "new"
        if has_begun:
            executor.begin()
        elif models is not None and self._world.facts.me.number > 1 and self._world.facts.minted:
            await self._take_over(models)
        started_at, over_at = self._world.clock.now(), 0.0
        while not self._over.done():
            if not has_begun and executor.machine.exchange.heard >= self._world.course.spec.gossip.min_nodes:
                has_begun = True
                self._safely(executor.begin)
            if not self._obstacles.stands(RECORD):  # what is on record is said: nothing new
                self._safely(executor.beat)
            self._agree(peers)
            self._say_who_does_not_answer()
            if (self._world.folder / LEAVE).exists() and not executor.machine.is_leaving:
                self._safely(executor.take, LeaveAsked(self._world.clock.now()))
            if executor.finished:
                over_at = over_at or self._world.clock.now()
            if self._may_end(over_at):
                return
            if self._world.clock.now() - started_at >= self._world.away_s:
                self._miss()
            await asyncio.sleep(self._world.beat_s)

    def _say_who_does_not_answer(self) -> None:
        before, self._unanswered = self._unanswered, self.executor.machine.exchange.unanswered(self._world.clock.now())
        if news := [str(peer) for peer in self._unanswered if peer not in before]:
            log.warning("these are there, and do not take a batch: the exchanges with others go on", peers=news)

    def _agree(self, peers: Peers) -> None:
        """Say what was measured, or which order to go by, where the topology goes by one."""
        machine = self.executor.machine
        if (agreement := self._world.planner.agreement) is not None:
            furthest = max(machine.step, machine.exchange.believed(machine.step))
            for peer, told in agreement.says(machine.me, machine.reachable, peers.quality(), furthest):
                peers.tell(peer, told)

    async def _take_over(self, models: ModelSource) -> None:
        """Have a peer's model before anything is said to anybody: nobody waits for a node that is not heard."""
        clock, since = self._world.clock, self._world.clock.now()
        while True:
            try:
                joined = await models.bring_model()
                break
            except Obstructed as error:  # of this machine: while it stands, no peer has been asked in vain
                self._obstacles.met(JOIN, error)
                since = clock.now()
            except TransferError as error:
                heed()
                self._obstacles.gone(JOIN)
                if clock.now() - since >= self._world.away_s:
                    log.warning("no peer gives a model: beginning with the run's first one", reason=str(error))
                    return
            await asyncio.sleep(self._world.beat_s)
        self._obstacles.gone(JOIN)
        log.info("joining with a peer's model", peer=joined.source, step=joined.step, **vars(joined.came))
        is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._safely(self.executor.take_over, joined.model, lambda: is_over.set_result(None))
        await is_over
        self._labour.release(joined.model)

    def _miss(self) -> None:
        """Who was not heard since the start counts as away: else a node that comes back to nobody waits for ever."""
        for name in self.executor.machine.exchange.unheard():
            log.warning("nothing is heard of a peer since this node started: it counts as away", peer=str(name))
            self._safely(self.executor.take, PeerSuspected(name, self._world.clock.now()))

    def _may_end(self, over_at: float) -> bool:
        """Whether no peer needs this node any more."""
        executor, now = self.executor, self._world.clock.now()
        if executor.finished == "left":
            return now - over_at >= self._world.farewell_s
        if executor.finished != "completed" or self._stays:
            return False
        waits_for = functools.partial(executor.farewells.waited_for, executor.machine.exchange, over_at, now)
        awaited = waits_for(self._world.away_s)
        if not awaited and (given_up := waits_for(math.inf)):
            log.warning("ends, though it is not sure that these peers know it", peers=[str(peer) for peer in given_up])
        elif awaited != self._awaited:
            log.info("all is done here; these peers may need this node", peers=[str(peer) for peer in awaited])
        self._awaited = awaited
        return not awaited

    def _ended(self) -> None:
        executor, record = self.executor, self._record
        log.info("this node's part is over", how=executor.finished, reason=executor.retired)
        if record is not None:
            record.ended(executor.finished, executor.retired)
        if executor.finished in ("evicted", "retired") and not self._over.done():
            self._over.set_result(None)

    # -- work -------------------------------------------------------------------------------------------------------

    def _step_facts(self) -> StepFacts:
        hours = self.executor.hours
        drill = {"drill": 1.0} if self._world.attack is not None else {}  # on record, so that nobody forgets it
        return StepFacts(hours.trained_s, hours.blocked_s, {**self._labour.metrics, **drill}, self._labour.filters)

    def _sha256(self, model: Artifact) -> str:
        return Layout.from_json(self._world.course.layout).model_sha256(self._world.holders.files.path(model.digest))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _safely(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do something with the executor; what goes wrong there ends the node's part, and nobody else's call."""
        try:
            functools.partial(work, *args, **kwargs)()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if self._over.done():
            return
        if not isinstance(error, CoveyError):
            log.error("the node's part failed", exc_info=error)
            error = RunFailed(f"the node cannot go on: {error!r}")
        self._over.set_exception(error)
        if self._post is not None:
            self._post.give_up(StoreError("this node cannot go on; it says why in its log"))
