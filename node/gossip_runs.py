"""The gossip runs that a coordinator has handed out to this node: taken part in one after the other, and stated to it.

A run has a worker of its own, for as long as the node takes part: its peers wait for each exchange, and must not wait
for the training of another run. While the coordinator is away the run goes on; the record keeps what it has not
acknowledged.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import structlog

from covey import messages as msg
from covey.driver.ending import end
from covey.errors import CoveyError, NotFound, Obstructed, RunFailed, SpecError, StoreError, StoreUnavailable
from covey.gossip.ledger import Incarnation
from covey.gossip.protocols.runs import require_possible
from covey.node.gossip.folders import incarnations, run_folder
from covey.node.gossip.obstacles import Obstacles
from covey.node.gossip.orders import forget_order, founders_of, keep_order, kept_orders, revised_in
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import read_facts
from covey.node.gossip.stating import Stated, statement_of
from covey.node.gossip_handed import Handed, members_of, roster_of, terms_of
from covey.node.gossip_models import GivenModels
from covey.node.gossip_part import GossipPart
from covey.node.gossip_worker import worker_of
from covey.node.operator.config import NodeConfig
from covey.node.peers.evicted import Evicted
from covey.node.peers.network import FOLDER as NOTICES
from covey.node.peers.roster import Member
from covey.node.ports import Link
from covey.node.site_log.site_log import SiteLog
from covey.spec import GossipSpec, parse_json
from covey.wire.evictions import EvictionStatement, SignedNotice
from covey.wire.identities.gossip_statement import MAX_STEPS, GossipStatement
from covey.wire.identities.identity import Identity
from covey.worker.client.output import unheard

log = structlog.get_logger(room="gossip")
LOOK_S = 0.5
"""How often it is looked whether there is something to state."""
STATE_S = 3.0
"""A node states how far it is at most so often, and more rarely the longer the run takes: each hundredth of that."""
WORKER = "worker"
PART = 1
"""The number that a decline names: there is one part a node in a gossip run."""


class GossipRuns:
    """This node's gossip runs.

    Args:
        config: The node's settings.
        identity: Its keys and certificate.
        link: To the coordinator.
        before: Awaited before a run's listener for peers is opened.
        given: Brings the files that runs begin with.
        site_log: What is shared of the node's log; None: nothing.
    """

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        link: Link,
        before: Callable[[], Awaitable[None]],
        given: GivenModels,
        site_log: SiteLog | None = None,
    ) -> None:
        self._config, self._identity, self._link = config, identity, link
        self._before, self._given, self._site_log = before, given, site_log
        self._runs: dict[str, Handed] = {}
        on_output = partial(site_log.printed, worker=WORKER) if site_log is not None else unheard
        self._worker = worker_of(config, identity.name, config.data_dir / "gossip" / WORKER, on_output=on_output)
        self._changed, self._obstacles = asyncio.Event(), Obstacles()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to take part in what is handed out, and go on with what was before."""
        for order in kept_orders(self._config.data_dir):
            self._ordered(order)
        self._tasks = [asyncio.create_task(work) for work in (self._take_part(), self._state())]
        for task in self._tasks:
            task.add_done_callback(_say_failure)

    async def stop(self) -> None:
        """End the part that is at work; the record has all of it."""
        for run in self._runs.values():
            run.stop.set()
        await end(self._tasks)
        await self._worker.stop()

    # -- what the coordinator says ----------------------------------------------------------------------------------

    def receive(self, message: msg.CoordinatorMessage) -> None:
        """Take a message of the coordinator's; those that concern no gossip run are passed over."""
        match message:
            case msg.GossipOrder():
                self._ordered(message)
            case msg.GossipNotice():
                self._noticed(message)
            case msg.GossipReceipt():
                self._received(message)
            case msg.Refusal():
                self._refused(message)
            case msg.Cancel(run=run, round=0, reason=reason) if run in self._runs:
                log.info("the coordinator ends the run", run=run, reason=reason)
                self._runs[run].is_over = True
                self._runs[run].stop.set()
                forget_order(self._config.data_dir, run)
                self._changed.set()
            case msg.DownloadGrant():
                self._given.granted(message)
            case msg.Welcome():
                self.lost()
                self._given.ask_again()

    def lost(self) -> None:
        """The session ended: what is unanswered is stated again in the next one."""
        for run in self._runs.values():
            run.told.sent_digest, run.told.due, run.told.content = "", 0.0, None

    def _ordered(self, order: msg.GossipOrder) -> None:
        known = self._runs.get(order.run)
        if known is None or known.is_over:
            try:
                spec = parse_json(order.spec)
                if not isinstance(spec, GossipSpec):
                    raise SpecError(f'mode: "{spec.mode}" is not gossip')
                self._config.check_run(spec)
                self._config.policy.check_participants(len(order.members))
                names = founders_of(order)
                require_possible(spec, names, allow_path=self._config.allows_paths(spec))
                keep_order(self._config.data_dir, order)
            except CoveyError as error:
                self._decline(order.run, error)
                return
            self._runs[order.run] = Handed(order, spec, roster_of(order))
        elif known.declined:
            self._link.send(msg.Decline(order.run, PART, 1, *known.declined.split(": ", 1)))
        elif known.order == order:
            known.failure = ""  # the coordinator is back, or this is its next try: so is this node's
        elif (revised := revised_in(known.order, order)) is not None:
            self._revised(known, order, members_of(revised))
        else:
            log.warning("the coordinator says something else of this run: this node begins anew", run=order.run)
            known.order, known.roster = order, roster_of(order)
            self._keep(known)
            known.stop.set()
        self._changed.set()

    def _revised(self, run: Handed, order: msg.GossipOrder, revised: list[Member]) -> None:
        """Nodes take part that did not, or are called elsewhere: what is at work meets them, and them only."""
        log.info("nodes join this run, or have another address", run=order.run, nodes=[m.name for m in revised])
        run.order = order
        run.roster.add(revised)
        if run.part is not None and run.part.network is not None:
            for member in revised:
                run.part.network.meet(member)
        self._keep(run)

    def _keep(self, run: Handed) -> None:
        """Put on disk what the coordinator says of a run; until that can be done it is tried again and again."""
        was_kept = run.is_kept
        try:
            keep_order(self._config.data_dir, run.order)
            run.is_kept = True
        except StoreError as error:
            run.is_kept = False
            if was_kept:
                log.warning("an order cannot be kept; trying again", run=run.order.run, reason=str(error))

    def _decline(self, run: str, error: CoveyError) -> None:
        log.warning("this node declines a gossip run", run=run, code=error.code, reason=str(error))
        self._link.send(msg.Decline(run, PART, 1, error.code, self._config.scrubbed(str(error))))

    def _noticed(self, message: msg.GossipNotice) -> None:
        run = self._runs.get(message.run)
        if run is None:
            return
        notice = SignedNotice(message.statement, message.signature, message.certificate)
        try:
            statement = EvictionStatement.from_bytes(notice.statement)
        except CoveyError as error:
            log.warning("a notice of eviction that does not count", run=message.run, reason=str(error))
            return
        run.notices[Incarnation(statement.node, statement.incarnation), statement.is_for_good] = notice
        if run.part is not None and run.part.network is not None:
            task = asyncio.create_task(run.part.network.hub.notified(notice, "the coordinator"))
            task.add_done_callback(_say_failure)
        self._changed.set()

    def _received(self, receipt: msg.GossipReceipt) -> None:
        run = self._runs.get(receipt.run)
        if run is None:
            return
        told = run.told
        told.incarnation, told.number, told.step = receipt.incarnation, receipt.number, receipt.step
        if receipt.update != told.sent_digest:  # another one was to come next
            told.due, told.content = 0.0, None
        told.sent_digest = ""

    def _refused(self, refusal: msg.Refusal) -> None:
        for run in self._runs.values():
            if run.told.sent_digest == refusal.update != "":
                log.warning("the coordinator takes no statement now", run=run.order.run, reason=refusal.reason)
                run.told.sent_digest, run.told.content = "", None

    # -- taking part ------------------------------------------------------------------------------------------------

    async def _take_part(self) -> None:
        """One run after the other, in the order in which they came; they share the listener for peers."""
        while True:
            self._changed.clear()
            for name in [name for name, run in self._runs.items() if run.is_over]:
                del self._runs[name]
            run = await self._obstacles.passed("runs", self._next)
            if run is None:
                await self._worker.stop()
                await self._changed.wait()
                continue
            await self._obstacles.passed("runs", partial(self._try, run))

    async def _next(self) -> Handed | None:
        """The first run that there is something to do for. Raises Obstructed."""
        return next((run for run in self._runs.values() if self._is_wanted(run)), None)

    def _is_wanted(self, run: Handed) -> bool:
        """Whether there is something to do for a run now. Raises Obstructed; of a damaged record the run is told."""
        if run.declined or run.failure or run.is_over:
            return False
        try:
            ended = self._ended(run)
        except Obstructed:
            raise
        except StoreUnavailable as error:
            raise Obstructed(str(error)) from error
        except CoveyError as error:
            self._failed(run, error)
            return False
        return ended == "" or (ended in ("retired", "evicted") and self._may_rejoin(run))

    def _ended(self, run: Handed) -> str:
        """How this node's newest incarnation has ended, by its record; empty: it has not, or there is none."""
        folder = run_folder(self._config.data_dir, run.order.run)
        numbers = incarnations(folder)
        if not numbers:
            return ""
        engine = open_record(folder / str(numbers[-1]))
        try:
            facts = read_facts(engine)
        finally:
            engine.dispose()
        return "" if facts is None else facts.ended

    def _may_rejoin(self, run: Handed) -> bool:
        """Whether everybody can know that this node's newest incarnation is over."""
        numbers = incarnations(run_folder(self._config.data_dir, run.order.run))
        return bool(numbers) and (Incarnation(self._identity.name, numbers[-1]), False) in run.notices

    async def _try(self, run: Handed) -> None:
        order = run.order
        run.stop.clear()
        terms = terms_of(self._config, run.spec, order, self._identity.name, rejoins=self._may_rejoin(run))
        if digest := run.spec.model.digest:
            terms = replace(terms, bring=partial(self._given.bring, digest, order.model_bytes))
        if self._site_log is not None:
            self._site_log.named(order.run, run.spec.full_name)
            self._site_log.began(order.run, 0, WORKER)
        log.info("this node takes part in a gossip run", run=order.run, name=run.spec.name, nodes=len(order.members))
        part = run.part = GossipPart(terms, self._identity, run.roster, self._worker)
        try:
            await self._obstacles.passed("notices of eviction", partial(self._remember, run))
            await self._before()
            how = await part.run(run.stop, run.notices.values())
            log.info("this node's part has ended", run=order.run, how=how)
        except CoveyError as error:
            self._failed(run, error)
        except Exception as error:
            log.error("this node's part in a gossip run failed", run=order.run, exc_info=error)
            self._failed(run, RunFailed(f"internal error: {error!r}"))
        finally:
            run.part = None

    async def _remember(self, run: Handed) -> None:
        """Put notices on disk before the wire is opened: a rejoining node's own is among them."""
        folder = run_folder(self._config.data_dir, run.order.run) / NOTICES
        evicted = Evicted(folder, run.order.run, run.roster.members.__contains__, self._identity.authority_pem)
        await asyncio.to_thread(evicted.load)
        for notice in tuple(run.notices.values()):  # others may come meanwhile
            await asyncio.to_thread(evicted.take, notice)

    def _failed(self, run: Handed, error: CoveyError) -> None:
        """Whoever never began declines; whoever did may go on when this node's operator has seen to it."""
        log.error("this node cannot go on in a gossip run", run=run.order.run, code=error.code, error=str(error))
        if self._site_log is not None:
            self._site_log.failed(run.order.run, 0, "gossip", error)
        why = f"{error.code}: {self._config.scrubbed(str(error))}"
        if self._has_begun(run):
            run.failure = why
            return
        run.declined = why
        forget_order(self._config.data_dir, run.order.run)
        self._decline(run.order.run, error)

    def _has_begun(self, run: Handed) -> bool:
        folder = run_folder(self._config.data_dir, run.order.run)
        numbers = incarnations(folder)
        if not numbers:
            return False
        try:
            return self._statement(run, numbers[-1], 1).step > 0
        except CoveyError:
            return True

    # -- stating ----------------------------------------------------------------------------------------------------

    async def _state(self) -> None:
        """State now and then how far this node is in each run."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            for run in list(self._runs.values()):
                if run.is_over or run.declined:
                    continue
                if not run.is_kept:
                    self._keep(run)
                if self._link.up:
                    await self._obstacles.passed("statements", partial(self._state_one, run, loop.time()))

    async def _state_one(self, run: Handed, now: float) -> None:
        told = run.told
        told.began = told.began or now
        if told.sent_digest or now < told.due:
            return
        numbers = incarnations(run_folder(self._config.data_dir, run.order.run))
        if not numbers:
            return
        told.due = now + max(STATE_S, (now - told.began) / 100)
        number = told.number + 1 if numbers[-1] == told.incarnation else 1
        try:
            statement = await asyncio.to_thread(self._statement, run, numbers[-1], number)
        except NotFound:
            return
        except CoveyError as error:
            log.warning("how far this node is cannot be stated", run=run.order.run, reason=str(error))
            return
        content = replace(statement, number=1, at=0.0)
        if content == told.content:
            return
        told.content = content
        raw = statement.to_bytes()
        told.sent_digest = hashlib.sha256(raw).hexdigest()
        self._link.send(msg.GossipSaid(run.order.run, raw, self._identity.signing_key.sign(raw)))
        if len(statement.steps) == MAX_STEPS:  # there may be more of them: it was long since the last statement
            told.due = now

    def _statement(self, run: Handed, incarnation: int, number: int) -> GossipStatement:
        told = run.told.step if incarnation == run.told.incarnation else 0
        key = self._identity.signing_key.key_id
        stated = Stated(self._identity.federation, run.order.run, key, number, told, run.failure)
        folder = run_folder(self._config.data_dir, run.order.run) / str(incarnation)
        return statement_of(folder, run.spec, stated)


def _say_failure(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("something about gossip runs failed", exc_info=error)
