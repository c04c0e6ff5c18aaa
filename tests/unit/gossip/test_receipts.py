"""Who is named by what nodes signed: a liar, whoever keeps what back; never an honest node, whenever it is asked."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from covey.errors import LedgerError
from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, Ledger, OutEdge
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.receipts import Overdraft, Receipt, overdrafts
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.random import Random
from covey.gossip.topologies.regular import Complete, Exponential, Ring
from covey.testing.swarm_ports import Message
from covey.testing.swarms import VirtualNode, VirtualSwarm

LIAR, BOB, CYD = map(Incarnation, ("node-0", "node-1", "node-2"))
NAMES = ("node-0", "node-1", "node-2")


class LyingSwarm(VirtualSwarm):
    """One node says that its batches have `factor` times the mass that they have."""

    factor = 1

    @override
    def send(self, message: Message) -> None:
        event = message.event
        if message.sender == LIAR and isinstance(event, ev.Arrived) and event.given is not None:
            units, said = self.factor * event.units, self.factor * event.given
            message = replace(message, event=replace(event, units=units, given=said))
        super().send(message)


def swarm_of(n: int, topology: Topology, overlap: int | None, factor: int = 1, steps: int = 12) -> LyingSwarm:
    models: dict[str, Any] = {f"node-{place}": np.zeros(1) for place in range(n)}
    policy = PushSumPolicy(steps, overlap=overlap)
    swarm = LyingSwarm(models, Planner(topology, Uniform(), 7), policy, has_slow_disks=True)
    swarm.factor = factor
    return swarm


def on_disk(node: VirtualNode) -> Ledger:
    """A node's account, as somebody finds it on its disk now."""
    saved = node.disk.saved
    machine = saved.snapshot.machine if saved.snapshot is not None else node.fresh()
    for event, _ in saved.noted:
        machine.handle(event)
    return machine.exchange.ledger


def signed(accounts: dict[Incarnation, Ledger]) -> list[Receipt]:
    """What receivers hold: a batch is taken only where its sender signed for all that came (`Ledger.apply`)."""
    return [
        Receipt(peer, me, edge.sequence, edge.applied)
        for me, ledger in accounts.items()
        for peer, edge in ledger.into.items()
    ]


def step(swarm: VirtualSwarm, rng: random.Random, crashes: bool) -> None:
    """Something happens: a message comes, perhaps twice or never, work is done, a node ends or is back."""
    what = rng.choices(["deliver", "drop", "double", "work", "beat", "crash"], [40, 6, 6, 40, 5, 2 * crashes])[0]
    index = rng.randrange(len(swarm.messages)) if swarm.messages else None
    busy = [node for node in swarm.up if node.is_busy]
    match what:
        case "deliver" | "double" if index is not None:
            swarm.deliver(index, keep=what == "double")
        case "drop" if index is not None:
            swarm.messages.pop(index)
        case "work" if busy:
            rng.choice(busy).finish_work()
        case "beat":
            rng.choice(swarm.up).heartbeat()
        case "crash":
            node = rng.choice(swarm.up)
            node.crash()
            node.restart()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(2, 5),
    overlap=st.sampled_from([0, 1, None]),
    topology=st.sampled_from([Exponential(), Ring(), Complete(), Random()]),
)
def test_an_honest_node_is_never_named(seed: int, n: int, overlap: int | None, topology: Topology) -> None:
    rng = random.Random(seed)
    swarm = swarm_of(n, topology, overlap)
    swarm.begin()
    found: dict[Incarnation, Ledger] = {}
    held: list[Receipt] = []
    for _ in range(rng.randrange(20, 300)):
        step(swarm, rng, crashes=True)
        if rng.random() < 0.1:  # accounts are read one by one, while the run goes on; old ones stay in use
            node = rng.choice(list(swarm.nodes.values()))
            found[node.me] = on_disk(node)
            held += signed({node.me: found[node.me]})
        if rng.random() < 0.01 and len(swarm.nodes) > 2:
            swarm.evict(rng.choice(list(swarm.nodes)))
        given_out = {me: ledger for me, ledger in found.items() if rng.random() < 0.9}
        finished = [me for me, node in swarm.nodes.items() if node.finished]
        assert (
            overdrafts(given_out, held, NAMES[:n], [me for me in finished if is_final(found.get(me), swarm, me)]) == []
        )


def is_final(account: Ledger | None, swarm: VirtualSwarm, me: Incarnation) -> bool:
    """Whether an account says that the node's part is over: then it is the one that the node ended with."""
    return account is not None and account == swarm.nodes[me].ledger


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(3, 5),
    overlap=st.sampled_from([0, 1, None]),
    topology=st.sampled_from([Exponential(), Ring(), Random()]),
    keeps_back=st.booleans(),
)
def test_a_liar_is_named_once_its_signatures_exceed_what_it_had(
    seed: int, n: int, overlap: int | None, topology: Topology, keeps_back: bool
) -> None:
    rng = random.Random(seed)
    swarm = swarm_of(n, topology, overlap, factor=2)
    swarm.begin()
    for _ in range(400):
        step(swarm, rng, crashes=False)
    swarm.settle()
    accounts = {me: on_disk(node) for me, node in swarm.nodes.items()}
    receipts = signed(accounts)
    gave = sum(receipt.units for receipt in receipts if receipt.sender == LIAR)
    had = sum(receipt.units for receipt in receipts if receipt.receiver == LIAR)
    if keeps_back:  # it hands over no account: what the others gave it is in theirs
        del accounts[LIAR]
        receipts = [receipt for receipt in receipts if receipt.receiver != LIAR]
    ended = [me for me, node in swarm.nodes.items() if node.finished]
    is_expected = gave > ONE + had and (not keeps_back or len(ended) == n)
    names = [f"node-{place}" for place in range(n)]
    assert [each.who for each in overdrafts(accounts, receipts, names, ended)] == [LIAR] * is_expected


def test_a_lie_is_found_in_an_ordinary_run() -> None:
    swarm = swarm_of(3, Ring(), 0, factor=2)
    swarm.begin()
    swarm.run()
    accounts = {me: on_disk(node) for me, node in swarm.nodes.items()}
    found = overdrafts(accounts, signed(accounts))
    assert [each.who for each in found] == [LIAR]
    assert found[0].gave > found[0].minted + found[0].had
    assert str(found[0]).startswith("node-0 gave away 2")


def test_what_others_say_without_a_signature_names_nobody() -> None:
    accounts = {LIAR: Ledger(ONE, ONE), BOB: Ledger(ONE, ONE)}
    accounts[BOB].apply(LIAR, 1, 1000 * ONE, 1000 * ONE)  # bob says so, and has nothing to show for it
    assert overdrafts(accounts, []) == []


def test_an_account_that_is_older_than_what_its_node_signed_is_no_way_out() -> None:
    receipts = [Receipt(LIAR, BOB, 3, 3 * ONE), Receipt(BOB, LIAR, 1, ONE)]
    old = Ledger(ONE, ONE, out={BOB: OutEdge(ONE, 1)})
    bob = Ledger(ONE, ONE, out={LIAR: OutEdge(ONE, 1)})
    cyd = Ledger(ONE, ONE)
    accounts = {LIAR: old, BOB: bob, CYD: cyd}
    assert overdrafts(accounts, receipts, NAMES, [BOB]) == []  # cyd may still give it something
    assert overdrafts(accounts, receipts, [*NAMES, "dan"], [BOB, CYD]) == []  # and so may dan
    assert overdrafts(accounts, receipts, NAMES, [BOB, CYD]) == [Overdraft(LIAR, 3 * ONE, ONE, ONE)]
    bob.evicted, cyd.evicted = {LIAR}, {LIAR}
    assert overdrafts(accounts, receipts, NAMES) == [Overdraft(LIAR, 3 * ONE, ONE, ONE)]


def test_a_batch_whose_signed_sum_is_not_what_came_is_refused() -> None:
    ledger = Ledger()
    assert ledger.apply(BOB, 1, 5, ONE, 5) == "applied"
    with pytest.raises(LedgerError, match="says it gave 7 units in all; with batch 2 8 came"):
        ledger.apply(BOB, 2, 3, ONE, 7)
    assert ledger.apply(BOB, 2, 3, ONE, 8) == "applied"


@pytest.mark.parametrize("overlap", [0, None])
def test_a_liars_mass_stops_nobody_elses_run(overlap: int | None) -> None:
    swarm = swarm_of(3, Ring(), overlap)
    honest = swarm.nodes[BOB]
    honest.take(ev.Arrived(LIAR, 1, 3 * ONE, 0, 0.0, 3 * ONE), np.zeros(1))
    honest.take(ev.Arrived(LIAR, 2, 3 * ONE, 0, 0.0, 6 * ONE), np.zeros(1))  # it has more than there is
    honest.finish_work()
    swarm.evict(LIAR)
    swarm.begin()
    swarm.run()
    swarm.settle()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    assert sum(node.ledger.live for node in swarm.nodes.values()) == 8 * ONE


@pytest.mark.parametrize("factor", [2, 1 << 20], ids=["for a while", "at once"])
def test_who_gives_more_than_there_is_is_refused_and_stops_nobody_in_lock_step(factor: int) -> None:
    swarm = swarm_of(7, Exponential(), 0, factor, steps=40)
    swarm.begin()
    swarm.run()
    swarm.settle()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    honest = {me: node for me, node in swarm.nodes.items() if me != LIAR}
    claims = [node.machine.exchange.contradictions for node in honest.values()]
    assert {who for each in claims for who in each} == {LIAR}
    assert all(text.endswith("there are 31525197391593472 in all") for each in claims for text in each.values())
    account = audit({me: node.ledger for me, node in honest.items()}, {LIAR: ONE})
    if factor > 2:  # nothing of it was ever taken
        assert account.is_exact
        assert all(LIAR not in node.ledger.into for node in honest.values())
    else:  # among the others every edge agrees
        assert [text.partition(" gave away")[0] for text in account.findings] == ["node-0"]


def test_who_was_refused_is_there_again_once_a_batch_of_it_is_taken() -> None:
    """As when a node learns late of one that joined with mass: what an honest peer gave may be more than it knew of."""
    node, peer = swarm_of(2, Complete(), 0).nodes[BOB], LIAR
    batch = ev.Arrived(peer, 1, 3 * ONE, 0, 0.0, 3 * ONE)
    word = ev.Progressed(peer, -1, 0, 0, 0, False, 0.0)
    node.take(batch, np.zeros(1))
    node.take(word)
    assert not node.machine.exchange.peers[peer].is_trusted
    assert "nobody waits for node-0 any more" in node.machine.exchange.contradictions[peer]
    node.take(ev.PeerJoined(CYD, ONE, 0.0))
    node.take(batch, np.zeros(1))
    node.take(word)
    assert node.machine.exchange.peers[peer].is_trusted
    assert not node.machine.exchange.contradictions
    assert node.ledger.into[peer].applied == 3 * ONE


def test_who_is_refused_goes_on_and_offers_the_batch_again() -> None:
    swarm = swarm_of(2, Complete(), 0)
    swarm.begin()
    node = swarm.nodes[LIAR]
    while node.machine.phase != "collecting":
        node.finish_work()
    node.take(ev.Refused(BOB, 1))
    node.take(ev.Progressed(BOB, -1, 0, 0, 0, False, 0.0))
    assert node.machine.exchange.peers[BOB].is_at_odds
    assert [send.batch.peer for send in node.machine.unacknowledged()] == [BOB]
    while node.is_busy:  # it waits for nothing of one that refuses
        node.finish_work()
    assert node.finished == "completed"
    assert node.ledger.in_flight == ONE // 2
    node.take(ev.Acknowledged(BOB, 1))
    node.take(ev.Progressed(BOB, -1, 0, 0, 1, False, 0.0))
    assert node.machine.exchange.peers[BOB].is_trusted
