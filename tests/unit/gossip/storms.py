"""Whatever can happen to the nodes of a run, in any order, and what has to be so after each event.

A storm is made of bytes, two for each event, so hypothesis can make it shorter. `COVEY_STORMS=50` makes as many times
as many of them (`make storms`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.gossip.push_sum import events as ev
from covey.testing.swarm_ports import Disk
from covey.testing.swarms import Notice, VirtualNode, VirtualSwarm

TIMES = int(os.environ.get("COVEY_STORMS", "1"))
EVENTS: Mapping[str, int] = {
    "deliver": 80,
    "work": 80,
    "drop": 12,
    "double": 12,
    "beat": 12,
    "restart": 12,
    "suspect": 6,
    "tell": 10,
    "crash": 5,
    "cut": 3,
    "heal": 4,
    "back-up": 4,
    "restore": 2,
    "leave": 1,
    "join": 2,
    "evict": 2,
}
"""How often each happens."""
ALWAYS = ("deliver", "work", "drop", "double", "beat", "restart", "suspect", "tell", "crash", "cut", "heal")
"""What changes nobody's membership, and loses no record."""
schedules = st.binary(min_size=40, max_size=700)


def stormy(examples: int) -> settings:
    """So many storms in an ordinary run."""
    return settings(max_examples=examples * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


class Storm:
    """Drives a swarm that has begun, and looks at everybody's account after each event.

    Args:
        swarm: It has begun. Notices of membership come to each of its nodes at a time of its own.
        joins: How an incarnation joins; None: none does.
        strangers: Whether nodes may join that there were not at the beginning.
        events: What may happen.
    """

    def __init__(
        self,
        swarm: VirtualSwarm,
        joins: Callable[[Incarnation], None] | None = None,
        *,
        strangers: bool = True,
        events: tuple[str, ...] = tuple(EVENTS),
    ) -> None:
        self.swarm, self._joins, self._strangers = swarm, joins, strangers
        self._table = [name for name, weight in EVENTS.items() if name in events for _ in range(weight)]
        self.gone: dict[Incarnation, int] = {}
        """Who is evicted, whether it knows that or not: the units that it began with."""
        self.buried: dict[Incarnation, Ledger] = {}
        """The accounts of those that know it."""
        self.stale: set[Incarnation] = set()
        """Who goes on from a record that is older than what a peer had of it."""
        self.restored: set[Incarnation] = set()
        """Who ever went on from an older record: it may publish a step again that nobody had."""
        self.joined: list[Incarnation] = []
        self._untold: list[tuple[VirtualNode, Notice]] = []
        self._back_ups: dict[Incarnation, Disk] = {}
        swarm.notify = lambda node, notice: self._untold.append((node, notice))

    @property
    def is_whole(self) -> bool:
        """Whether those who began are all there, nobody else is, and no record is an old one."""
        return not (self.gone or self.joined or self.stale)

    def rage(self, schedule: bytes) -> None:
        """Let everything happen."""
        for kind, pick in zip(schedule[::2], schedule[1::2], strict=False):
            self._happen(self._table[kind * len(self._table) // 256], pick)
            self.check()

    def _happen(self, what: str, pick: int) -> None:
        swarm, up = self.swarm, self.swarm.up
        match what:
            case "deliver" | "double" if swarm.messages:
                swarm.deliver(pick % len(swarm.messages), keep=what == "double")
            case "drop" if swarm.messages:
                swarm.messages.pop(pick % len(swarm.messages))
            case "work" if busy := [node for node in up if node.is_busy]:
                busy[pick % len(busy)].finish_work()
            case "crash" if mortal := [node for node in up if not node.executor.retired]:  # a daemon refuses to go on
                mortal[pick % len(mortal)].crash()
            case "restart" if down := [node for node in swarm.nodes.values() if not node.is_up]:
                down[pick % len(down)].restart()
            case "beat" if up:
                up[pick % len(up)].heartbeat()
            case "suspect" if pairs := [(node, peer) for node in up for peer in node.machine.exchange.peers]:
                node, peer = pairs[pick % len(pairs)]
                node.take(ev.PeerSuspected(peer, 0.0))
            case "tell" if self._untold:
                self._tell(pick)
            case "cut":
                self._cut(pick)
            case "heal":
                swarm.cut = frozenset()
            case "leave" if len(staying := [node for node in up if not node.machine.is_leaving]) > 2:
                staying[pick % len(staying)].take(ev.LeaveAsked(0.0))
            case _:
                self._lose_or_gain(what, pick)

    def _lose_or_gain(self, what: str, pick: int) -> None:
        members = [node for me, node in self.swarm.nodes.items() if me not in self.gone]
        at_work = [node for node in members if not node.finished]
        match what:
            case "back-up" if members:
                node = members[pick % len(members)]
                self._back_ups[node.me] = node.disk.copy()
            case "restore" if old := [node for node in at_work if node.me in self._back_ups]:
                self._restore(old[pick % len(old)])
            case "evict" if len(members) > 2:
                retired = [node for node in members if node.executor.retired]
                self._evict((retired or members)[pick % len(retired or members)])
            case "join" if self._joins is not None and len(self.joined) < 2 and self.swarm.up:
                self._join(self._joins, pick)

    def _cut(self, pick: int) -> None:
        """Two sides hear nothing of each other any more, and each suspects the other one: now, or by and by."""
        side = {me for place, me in enumerate(self.swarm.nodes) if pick >> place & 1}
        self.swarm.cut = frozenset(side)
        for node in self.swarm.up if pick & 128 else ():
            for peer in list(node.machine.exchange.peers):
                if (peer in side) != (node.me in side):
                    node.take(ev.PeerSuspected(peer, 0.0))

    def _restore(self, node: VirtualNode) -> None:
        """A node goes on with a record from before; its links broke, and what was on its way along them is lost."""
        swarm = self.swarm
        self.restored.add(node.me)
        node.crash()
        swarm.messages = [message for message in swarm.messages if node.me not in (message.sender, message.receiver)]
        node.disk = self._back_ups[node.me].copy()
        node.crash()
        if any(_has_proof(ledger, of=node.account, me=node.me, peer=peer) for peer, ledger in self.accounts.items()):
            self.stale.add(node.me)
        node.restart()

    def _evict(self, node: VirtualNode) -> None:
        self.gone[node.me] = node.minted
        self._untold += [(each, ev.PeerEvicted(node.me, 0.0)) for each in self.swarm.nodes.values()]

    def _join(self, joins: Callable[[Incarnation], None], pick: int) -> None:
        again = [Incarnation(who.node, who.number + 1) for who in self.gone]
        again = [who for who in again if who not in self.gone and who not in self.swarm.nodes]
        if not again and not self._strangers:
            return
        me = again[pick % len(again)] if again else Incarnation(f"late-{len(self.joined)}", 2)
        self.joined.append(me)
        joins(me)
        self._untold += [(self.swarm.nodes[me], ev.PeerEvicted(who, 0.0)) for who in self.gone]

    def _tell(self, pick: int) -> None:
        node, notice = self._untold.pop(pick % len(self._untold))
        if self.swarm.nodes.get(node.me) is not node:
            return
        if node.me == notice.peer and not node.is_up:
            self._untold.append((node, notice))  # it is told when it is back
            return
        node.notice(notice)
        if node.me == notice.peer:
            self.buried[node.me] = node.account
            node.crash()
            del self.swarm.nodes[node.me]

    # -- what has to be so ------------------------------------------------------------------------------------------

    @property
    def accounts(self) -> dict[Incarnation, Ledger]:
        """Of all incarnations that there ever were; of one that is down, what it will go on from."""
        return {**self.buried, **{me: node.account for me, node in self.swarm.nodes.items()}}

    def check(self) -> None:
        """The invariants: whole units, compared with ==."""
        accounts = self.accounts
        for me, ledger in accounts.items():
            assert 0 <= ledger.live == ledger.balance, me
        for node in self.swarm.up:
            exchange = node.machine.exchange
            assert exchange.kept >= 0
            came = [(portion.source, portion.number) for portion in exchange.pending if portion.source != node.me]
            assert len(set(came)) == len(came)
            assert not node.executor.retired or node.me in self.stale, node.executor.retired
        in_flight, twice = self._edges(accounts)
        if not self.stale:
            whole = sum(ledger.live + ledger.lost - ledger.minted for ledger in accounts.values())
            assert whole + sum(in_flight.values()) == sum(twice.values())
        self._audit(accounts, in_flight, twice)

    def _edges(self, accounts: Mapping[Incarnation, Ledger]) -> tuple[dict[Any, int], dict[Any, int]]:
        """Units on their way, and units that were had and taken back all the same, by edge: each batch once."""
        in_flight, twice = {}, {}
        for giver, taker in itertools.permutations(accounts.keys() - self.stale, 2):
            gave, had = accounts[giver].out.get(taker, OutEdge()), accounts[taker].into.get(giver, InEdge())
            if gave.sequence == had.sequence:
                assert had.applied == gave.sent, (giver, taker)
                twice[giver, taker] = gave.reclaimed
            else:
                assert gave.sequence == had.sequence + 1, (giver, taker)
                newest = gave.waiting or gave.reclaimed
                assert newest > 0, (giver, taker)
                assert had.applied == gave.sent - newest, (giver, taker)
                in_flight[giver, taker] = gave.waiting
            assert not gave.reclaimed or taker in self.gone or self._has_left(taker), (giver, taker)
        return in_flight, twice

    def _has_left(self, me: Incarnation) -> bool:
        return me in self.swarm.nodes and self.swarm.nodes[me].machine.end == "left"

    def _audit(self, accounts: Mapping[Incarnation, Ledger], in_flight: Any, twice: Any) -> None:
        """What the audit says, without a look at those who are gone: exact, and uncertain by no more than it says."""
        apart = {me: self.swarm.nodes[me].minted for me in self.stale if me in self.swarm.nodes} | self.gone
        there = {me: ledger for me, ledger in accounts.items() if me not in apart}
        audited = audit(there, apart)
        assert audited.live + audited.in_flight == audited.minted - audited.lost
        if self.stale:  # it may have given again what it had given away already: then it is named
            assert all(any(str(who) in text for who in apart) for text in audited.findings), audited.findings
            return
        assert audited.is_exact, audited.findings
        lost = audited.lost - sum(ledger.lost for ledger in there.values())
        took = sum(accounts[who].live + accounts[who].lost for who in apart)
        took += sum(units for edge, units in in_flight.items() if apart.keys() & set(edge))
        took -= sum(units for edge, units in twice.items() if apart.keys() >= set(edge))  # had by one, and with both
        assert lost <= took <= lost + audited.uncertain
        assert all(not units for edge, units in twice.items() if not apart.keys() & set(edge))

    # -- the end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """A good network from now on, everybody is back, and who retired is evicted: all come to their end."""
        swarm = self.swarm
        swarm.cut = frozenset()
        for node in list(swarm.nodes.values()):
            if not node.is_up:
                node.restart()
        is_settled = False
        while not is_settled:
            while self._untold:
                self._tell(0)
            swarm.settle()
            for node in [node for me, node in swarm.nodes.items() if node.executor.retired and me not in self.gone]:
                self._evict(node)
            is_settled = not self._untold
        self.check()
        under_way = [node for node in swarm.nodes.values() if node.finished not in ("completed", "left")]
        is_last = len(under_way) == 1 and "waiting for a peer that takes all mass" in under_way[0].executor.waits_for
        if not is_last or any(node.finished == "completed" for node in swarm.nodes.values()):
            assert not under_way, [(str(node.me), vars(node.machine), node.executor.waits_for) for node in under_way]
        if not self.stale:
            stayed = [node for node in swarm.nodes.values() if node.finished != "left" or swarm.policy.weighs == "mass"]
            assert (
                sum(node.ledger.in_flight for node in stayed) == 0
            )  # where receivers weigh, a leaver hands nothing over
            assert not [
                node.machine.exchange.contradictions for node in swarm.up if node.machine.exchange.contradictions
            ]


def _has_proof(ledger: Ledger, *, of: Ledger, me: Incarnation, peer: Incarnation) -> bool:
    """Whether a peer's account says more of what a node gave and had than the node's own."""
    given, had = ledger.into.get(me, InEdge()).sequence, ledger.out.get(me, OutEdge())
    newest = had.sequence - bool(had.waiting or had.reclaimed)
    return given > of.out.get(peer, OutEdge()).sequence or newest > of.into.get(peer, InEdge()).sequence
