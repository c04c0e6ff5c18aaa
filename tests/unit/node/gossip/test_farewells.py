"""Nodes that are through part from each other: whatever is lost, nobody waits for one that is gone."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import Progressed
from covey.gossip.push_sum.exchange import Exchange
from covey.node.gossip.farewells import KNOWS, KNOWS_ALL, Farewells

A, B = Incarnation("a"), Incarnation("b")
PATIENCE_S = 120.0


def said(peer: Incarnation, level: int, now: float = 0.0, acknowledged: int = 0) -> Progressed:
    return Progressed(peer, 5, 0, acknowledged, 0, level > 0, now, level)


def between(me: Incarnation, other: Incarnation, *, is_trusted: bool = True) -> Exchange:
    exchange = Exchange(me, [other], ONE, 2 * ONE, is_met=True)
    exchange.peers[other].is_trusted = is_trusted
    return exchange


@given(st.integers(0, 2**32), st.floats(0.0, 0.9), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_over_any_line_that_loses_doubles_and_delays_both_end_and_nobody_is_left_in_doubt(
    seed: int, loss: float, apart: int
) -> None:
    rng = random.Random(seed)
    sides = {A: Farewells(), B: Farewells()}
    through_at = {A: 0, B: apart}
    ended: set[Incarnation] = set()
    wires: dict[Incarnation, deque[int]] = {A: deque(), B: deque()}
    for beat in range(2000):
        for me, other in ((A, B), (B, A)):
            if me in ended:
                continue
            if wires[me] and rng.random() < 0.7:
                sides[me].heard(said(other, wires[me].popleft(), float(beat)))
            is_through = beat >= through_at[me]
            level = sides[me].level(other) if is_through else 0
            for _ in range(rng.choice((1, 1, 2))):
                if other not in ended and rng.random() >= loss:
                    wires[other].append(level)
            exchange = between(me, other, is_trusted=other not in ended)
            if is_through and not sides[me].waited_for(exchange, float(through_at[me]), float(beat), 10.0**9):
                ended.add(me)
        if len(ended) == 2:
            return
    raise AssertionError(f"they still wait: {ended}")


def test_who_heard_only_that_a_peer_is_through_may_not_end_though_it_is_silent() -> None:
    farewells = Farewells()
    assert farewells.heard(said(B, 1))
    for is_trusted in (True, False):
        assert farewells.waited_for(between(A, B, is_trusted=is_trusted), 0.0, 100.0, PATIENCE_S) == [B]
        assert not farewells.waited_for(between(A, B, is_trusted=is_trusted), 0.0, 120.0, PATIENCE_S)
    assert farewells.level(B) == KNOWS
    assert farewells.heard(said(B, 2, 200.0))
    assert farewells.waited_for(between(A, B), 0.0, 300.0, PATIENCE_S) == [B]
    assert not farewells.waited_for(between(A, B, is_trusted=False), 0.0, 201.0, PATIENCE_S)
    assert farewells.heard(said(B, 3, 210.0))
    assert not farewells.heard(said(B, 3, 211.0))
    assert not farewells.heard(said(B, 1, 212.0))  # late: it says what was once so
    assert farewells.level(B) == KNOWS_ALL
    assert not farewells.waited_for(between(A, B), 0.0, 210.0, PATIENCE_S)


def test_a_peer_that_goes_on_is_waited_for_while_it_is_there_and_then_for_a_while() -> None:
    farewells = Farewells()
    assert not farewells.heard(said(B, 0, 1000.0))
    assert farewells.waited_for(between(A, B), 0.0, 5000.0, PATIENCE_S) == [B]
    assert farewells.waited_for(between(A, B, is_trusted=False), 0.0, 1119.0, PATIENCE_S) == [B]
    assert not farewells.waited_for(between(A, B, is_trusted=False), 0.0, 1120.0, PATIENCE_S)
    assert Farewells().waited_for(between(A, B, is_trusted=False), 7.0, 100.0, PATIENCE_S) == [B]  # never heard


def test_a_peer_that_does_not_know_its_batches_acknowledged_is_waited_for_and_not_for_ever() -> None:
    farewells, exchange = Farewells(), between(A, B)
    exchange.ledger.apply(B, 1, 5, 2 * ONE)
    farewells.heard(said(B, 3, 10.0))
    assert farewells.waited_for(exchange, 0.0, 20.0, PATIENCE_S) == [B]
    assert not farewells.waited_for(exchange, 0.0, 130.0, PATIENCE_S)
    farewells.heard(said(B, 3, 11.0, acknowledged=1))
    assert not farewells.waited_for(exchange, 0.0, 20.0, PATIENCE_S)


def test_one_that_contradicts_itself_keeps_nobody_by_talking_on() -> None:
    farewells, exchange = Farewells(), between(A, B, is_trusted=False)
    exchange.contradictions[B] = "it said otherwise before"
    farewells.heard(said(B, 0, 1000.0))
    assert not farewells.waited_for(exchange, 0.0, 1000.0, PATIENCE_S)


@pytest.mark.parametrize("is_finished", [False, True])
def test_an_older_version_says_only_that_it_is_through(is_finished: bool) -> None:
    farewells = Farewells()
    assert farewells.heard(Progressed(B, 5, 0, 0, 0, is_finished, 1.0)) is is_finished
    assert farewells.level(B) == 1 + is_finished
