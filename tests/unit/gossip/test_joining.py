"""Whom a node asks for mass that joined without any."""

import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.events import Arrived, Progressed
from covey.gossip.push_sum.exchange import Exchange
from covey.gossip.push_sum.joining import asked_for_half
from covey.gossip.push_sum.machine import PushSum
from covey.gossip.push_sum.policy import PushSumPolicy
from covey.node.gossip.state import machine_from_text, machine_to_text

ME, BOB, CYD, DAN = Incarnation("ada", 2), Incarnation("bob"), Incarnation("cyd"), Incarnation("dan")


def says(exchange: Exchange, peer: Incarnation, *, sequence: int = 0, is_finished: bool = False) -> None:
    exchange.progressed(Progressed(peer, 3, sequence, 0, 0, is_finished, 0.0), 10)


@pytest.fixture
def machine() -> PushSum:
    """Of a joiner that heard two of three peers, and asked one of them."""
    machine = PushSum(ME, PushSumPolicy(10, None), (BOB, CYD, DAN), minted=0)
    assert asked_for_half(machine.exchange) is None  # it heard nobody yet
    for peer in (BOB, CYD):
        says(machine.exchange, peer)
    assert asked_for_half(machine.exchange) == BOB
    return machine


def test_it_asks_the_same_one_whoever_comes_and_is_silent(machine: PushSum) -> None:
    says(machine.exchange, DAN)
    assert asked_for_half(machine.exchange) == BOB
    machine.exchange.peers[BOB].is_trusted = False
    assert asked_for_half(machine.exchange) == BOB
    again = machine_from_text(machine_to_text(machine)).exchange
    assert asked_for_half(again) == BOB
    says(again, BOB, sequence=1, is_finished=True)  # what it gave is on its way
    assert asked_for_half(again) == BOB
    again.arrived(Arrived(BOB, 1, ONE // 2, 3, 0.0), 10)
    assert asked_for_half(again) is None


@pytest.mark.parametrize("how", ["evicted", "left", "through", "liar"])
def test_it_asks_another_one_where_that_gives_nothing_any_more(machine: PushSum, how: str) -> None:
    exchange = machine.exchange
    match how:
        case "evicted":
            exchange.evicted(BOB)
        case "left":
            exchange.left(BOB, 0)
        case "through":
            says(exchange, BOB, is_finished=True)
        case _:
            exchange.progressed(Progressed(BOB, 3, 0, 0, 10**6, False, 0.0), 10)
    assert asked_for_half(exchange) == CYD
