"""Mode `gossip`: the coordinator is directory and observer. No tensor passes through it, and nobody waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

from typing_extensions import override

from covey import messages as msg
from covey.artifact import Artifact
from covey.coordinator.modes.gossip import events as ev
from covey.coordinator.modes.gossip.machine import LATE, PART, GossipMachine, Member
from covey.coordinator.modes.gossip.statements import MOST_STATEMENTS, Statements, require_member
from covey.coordinator.runs.active_run import ActiveRun
from covey.coordinator.runs.facts import Counted, NodeProgress
from covey.coordinator.runs.mode import Mode
from covey.coordinator.runs.steps.preparation import Prepared
from covey.errors import CoveyError, Late, public_text
from covey.gossip.protocols.runs import combination_of, require_possible
from covey.gossip.topologies.given import Given
from covey.machines.shortage import listed
from covey.spec import GossipSpec
from covey.storage.record.contract import EventRecord, GossipMemberRecord, VersionRecord
from covey.storage.record.gossip import JOINED
from covey.wire.identities.gossip_statement import GossipStatement

EVICTED = "gossip-evicted"
"""Kind of the event of an incarnation that is out of a run; its detail is `{"incarnation": N, "reason": TEXT}`.

With `"for_good": true` its node is out, with every incarnation.
"""

TURNED_AWAY = "gossip-turned-away"
"""Of a node that came after the run began, and takes no part: `{"reason": TEXT}`."""


class GossipMode(Mode):
    """One run's part that is mode `gossip`.

    Args:
        run: The run.
    """

    counts: Counted = "steps"

    def __init__(self, run: ActiveRun) -> None:
        self._run, self._services = run, run.services
        self._machine: GossipMachine | None = None
        self._members: dict[str, GossipMemberRecord] = {}
        self._statements = Statements(self._services.federation, run.run.run)
        self._notices: dict[tuple[str, int], msg.GossipNotice] = {}
        self._for_good: dict[str, msg.GossipNotice] = {}
        self._late: dict[str, int] = {}
        """Nodes that came after the run began, and their parts of the data."""

    # -- taking the run up ----------------------------------------------------------------------------------------

    @override
    async def begin(self, prepared: Prepared, expected: dict[str, float]) -> GossipMachine:
        run, store = self._run, self._run.record
        spec = prepared.spec
        if not isinstance(spec, GossipSpec):
            raise TypeError(f"a specification of mode {spec.mode}")
        for event in await run.persist(store.events, run=run.run.run, kind=JOINED, limit=100_000):
            self._late[event.node] = int(str(event.detail["part"]))
        founders = [node for node in run.run.roster if node not in self._late]
        require_possible(spec, founders, allow_path=self._services.allow_paths)
        members = await run.persist(store.gossip_members, run.run.run)
        self._members = {member.node: member for member in members}
        recorded = await run.persist(store.newest_gossip_statements, run.run.run)
        self._statements = Statements(self._services.federation, run.run.run, recorded)
        rows = {row.node: row for row in members}
        for event in await run.persist(store.events, run=run.run.run, kind=EVICTED, limit=100_000):
            what = int(str(event.detail["incarnation"])), str(event.detail["reason"])
            self._note_out(ev.Evict(event.node, *what, for_good=event.detail.get("for_good") is True))
        known = {node: self._known(rows[node]) for node in run.run.roster if node in rows}
        self._machine = GossipMachine(self._policy(spec), run.run.roster, expected, known)
        for row in recorded:
            self._show(GossipStatement.from_bytes(row.statement))
        return self._machine

    def _known(self, row: GossipMemberRecord) -> Member:
        part = self._late.get(row.node)
        after = [number + 1 for node, number in self._notices if node == row.node]
        present = max(self._statements.of(row.node).incarnation, *after, 1 if part is None else LATE)
        is_out = row.node in self._for_good
        return Member(cast(ev.MemberState, row.state), row.reason, present, part=part, is_out_for_good=is_out)

    def _policy(self, spec: GossipSpec) -> ev.GossipRunPolicy:
        topology = combination_of(spec, allow_path=self._services.allow_paths).topology
        closed = "the run's topology lists who takes part" if isinstance(topology, Given) else ""
        parts = None if spec.data.partition == "local" else spec.data.parts or 0
        return ev.GossipRunPolicy(spec.min_nodes, parts=parts, closed=closed)

    # -- the run's questions --------------------------------------------------------------------------------------

    @override
    def open_round(self, node: str) -> int:
        return PART if self._machine is not None and self._machine.expects(node, PART) else 0

    @override
    def base_of(self, node: str, number: int) -> VersionRecord:
        raise Late("nodes of a gossip run send the coordinator no updates")

    @override
    def served(self, node: str, digest: str) -> Artifact | None:
        """The file that the run begins with, where it does not begin with what the seed gives."""
        first = self._given
        return first if first is not None and first.digest == digest and node in self._members else None

    @property
    def _given(self) -> Artifact | None:
        run = self._run
        is_given = run.prepared is not None and run.prepared.spec.model.initial != ""
        return run.newest().artifact if is_given else None

    @override
    def moved(self, node: str, progress: NodeProgress) -> None:
        """Nodes say how far they are in signed statements."""

    @override
    def waits_for(self) -> str:
        """What is in the way of nodes, as they say; and who of them cannot reach whom."""
        machine = self._machine
        parts = machine.parts if machine is not None else {}
        failed = [f"{node} {part.state}: {part.reason}" for node, part in parts.items() if part.state == "failed"]
        at_work = [node for node, part in parts.items() if part.state not in ev.FOR_GOOD]
        return "; ".join(filter(None, [*failed, _apart(self._without_address(at_work))]))

    def _without_address(self, nodes: Iterable[str]) -> list[str]:
        """Those of them that only call."""
        return [node for node in nodes if node in self._members and not self._members[node].address]

    # -- what nodes say -------------------------------------------------------------------------------------------

    @override
    async def stated(self, node: str, message: msg.GossipSaid) -> None:
        services, run = self._services, self._run
        try:
            require_member(node, self._members)
            key = await services.members.present_key(node)
            statement = await asyncio.to_thread(self._statements.open, node, key, message)
            self._statements.require_successor(statement, self._notices)
        except CoveyError as error:
            run.log.warning("a statement that does not count", node=node, code=error.code, error=str(error))
            digest = hashlib.sha256(message.statement).hexdigest()
            services.nodes.send(node, msg.Refusal(digest, error.code, public_text(error)))
            return
        known = self._statements.of(node)
        if self._statements.is_next(statement):
            row = self._statements.record(statement, message, services.now())
            await run.persist(run.record.add_gossip_statement, row, most=MOST_STATEMENTS)
            known = self._statements.recorded(row)
            self._show(statement)
            at = services.clock()
            run.post(ev.Stated(node, statement.incarnation, statement.state, statement.reason, at))
        services.nodes.send(node, known.receipt(run.run.run))

    def _show(self, statement: GossipStatement) -> None:
        """For those who watch."""
        newest = statement.steps[-1] if statement.steps else None
        loss = newest.metrics.get("loss", math.nan) if newest is not None else math.nan
        seconds = newest.trained_s + newest.blocked_s if newest is not None else 0.0
        phase = "training" if statement.state == "working" else statement.state
        whole = self._run.ready().spec.rounds_in_all if self._run.prepared is not None else 0
        self._run.progress.entered(statement.node, NodeProgress(phase, statement.step, whole, loss, seconds))
        self._services.changes.notify()

    # -- actions --------------------------------------------------------------------------------------------------

    @override
    async def do(self, action: Any) -> None:
        match action:
            case ev.OpenGossip(roster=roster):
                await self._open(roster)
            case ev.Admit(node=node, part=part):
                await self._admit(node, part)
            case ev.TurnAway(node=node, reason=reason):
                run = self._run
                run.log.warning("a node that came late takes no part", node=node, reason=reason)
                event = EventRecord(self._services.now(), TURNED_AWAY, run.run.run, node, {"reason": reason})
                await run.persist(run.record.add_event, event)
            case ev.SendOrder(node=node):
                await self._order(node)
            case ev.TellOthers(node=node):
                self._hand_out([other for other in self._members if other != node and other in self._services.nodes])
            case ev.NoteMember():
                await self._note(action)
            case ev.Evict():
                await self._evict(action)

    async def _open(self, roster: tuple[str, ...]) -> None:
        run = self._run
        await run.extend_roster(roster)
        members = [self._present(node) or msg.GossipMember(node, "", "") for node in roster]
        self._members = {
            member.name: GossipMemberRecord(run.run.run, member.name, member.address, member.fingerprint)
            for member in members
        }
        await run.persist(run.record.set_gossip_members, list(self._members.values()))
        if apart := _apart(self._without_address(roster)):
            run.log.warning(apart)
        run.log.info("the run begins", nodes=len(roster))

    async def _admit(self, node: str, part: int) -> None:
        """A node joins: on record first, then in the directory of all."""
        run, services = self._run, self._services
        event = EventRecord(services.now(), JOINED, run.run.run, node, {"part": part})
        await run.persist(run.record.add_event, event)
        self._late[node] = part
        await run.extend_roster((*run.run.roster, node))
        member = self._present(node) or msg.GossipMember(node, "", "")
        row = self._members[node] = GossipMemberRecord(run.run.run, node, member.address, member.fingerprint)
        await run.persist(run.record.set_gossip_members, [row])
        run.log.info("a node joins the run", node=node, part=part)
        run.progress.entered(node, NodeProgress("invited"))
        self._hand_out([other for other in self._members if other in services.nodes])
        self._send_notices(node)

    def _present(self, node: str) -> msg.GossipMember | None:
        return self._services.nodes.peer(node)

    async def _order(self, node: str) -> None:
        """Tell a node what it takes part in; where its address has changed, everybody else will be told, too."""
        run = self._run
        row, present = self._members[node], self._present(node)
        if present is not None and (present.address, present.fingerprint) != (row.address, row.fingerprint):
            row = GossipMemberRecord(run.run.run, node, present.address, present.fingerprint, row.state, row.reason)
            self._members[node] = row
            await run.persist(run.record.set_gossip_members, [row])
            run.post(ev.Moved(node, self._services.clock()))
        if self._members[node].state == "invited":
            run.progress.entered(node, NodeProgress("invited"))
        self._hand_out([node])
        self._send_notices(node)

    def _send_notices(self, node: str) -> None:
        for notice in (*self._notices.values(), *self._for_good.values()):
            self._services.nodes.send(node, notice)

    def _hand_out(self, to: Sequence[str]) -> None:
        """Say who takes part."""
        run, late = self._run, self._late
        members = tuple(
            msg.GossipMember(m.node, m.address, m.fingerprint, m.node in late, late.get(m.node, 0))
            for m in self._members.values()
        )
        size = self._given.size_bytes if self._given is not None else 0
        order = msg.GossipOrder(run.run.run, run.run.spec, run.newest().model_sha256, members, size)
        for node in to:
            self._services.nodes.send(node, order)

    async def _note(self, action: ev.NoteMember) -> None:
        run, row = self._run, self._members[action.node]
        reason = action.reason[:1000]
        self._members[action.node] = row = GossipMemberRecord(
            row.run, row.node, row.address, row.fingerprint, action.state, reason
        )
        await run.persist(run.record.set_gossip_members, [row])
        if action.state != "working":
            run.progress.entered(action.node, NodeProgress(action.state))
            run.log.info("a node's part", node=action.node, state=action.state, reason=reason)

    async def _evict(self, action: ev.Evict) -> None:
        known = action.node in self._for_good if action.for_good else (action.node, action.incarnation) in self._notices
        if known:
            return
        detail: dict[str, object] = {"incarnation": action.incarnation, "reason": action.reason}
        if action.for_good:
            detail["for_good"] = True
        event = EventRecord(self._services.now(), EVICTED, self._run.run.run, action.node, detail)
        await self._run.persist(self._run.record.add_event, event)
        notice = self._note_out(action)
        for node in self._members:
            self._services.nodes.send(node, notice)

    def _note_out(self, out: ev.Evict) -> msg.GossipNotice:
        run, notary = self._run.run.run, self._services.notary
        notice = notary.notice(run, out.node, out.incarnation, out.reason, for_good=out.for_good)
        if out.for_good:
            self._for_good[out.node] = notice
        else:
            self._notices[out.node, out.incarnation] = notice
        return notice


def _apart(callers: Sequence[str]) -> str:
    """That nodes which only call cannot reach each other, and what to do; empty: there are no two of them."""
    if len(callers) < 2:
        return ""
    return (
        f"{listed(callers)} cannot reach each other, for peers can call none of them: start all of them but one with "
        "covey node start --peer-listen HOST:PORT, or --peer-relay"
    )
