"""On which order nodes agree, when it counts, and what a liar, a silent node and a lost message cost."""

from __future__ import annotations

import pytest

from covey.errors import SpecError
from covey.gossip.agreement import AHEAD, EVERY, Agreement, OrderTold, WaysMeasured
from covey.gossip.graph import is_strongly_connected, union
from covey.gossip.ledger import Incarnation
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.protocols.runs import planner_of, require_possible
from covey.gossip.topologies.contract import LinkQuality, Swarm
from covey.gossip.topologies.measured import Measured
from covey.gossip.topologies.random import Random
from covey.spec import GossipSpec, parse_toml

A, B, C, D = NODES = [Incarnation(name) for name in "abcd"]
FAST, SLOW = LinkQuality(1e8, 0.001), LinkQuality(1e5, 0.001)
Slow = frozenset[frozenset[str]]
A_B: Slow = frozenset({frozenset("ab")})


class Talking:
    """Four nodes that hear each other, as far as they are there; the links of `slow` are."""

    def __init__(self, slow: Slow = A_B) -> None:
        self.slow, self.live = slow, list(NODES)
        self.nodes = {node: Agreement(Measured(), "abcd") for node in NODES}

    def ways(self, node: Incarnation) -> dict[str, LinkQuality]:
        return {to.node: SLOW if {node.node, to.node} in self.slow else FAST for to in NODES if to != node}

    def speak(self, step: int, *, deaf: Incarnation | None = None, silent: Incarnation | None = None) -> None:
        for node in [node for node in self.live if node != silent]:
            for to, said in self.nodes[node].says(node, self.live, self.ways(node), step):
                if to != deaf:
                    self.nodes[to].heard(said, self.live)

    def orders(self, step: int) -> set[tuple[str, ...]]:
        return {self.nodes[node].at(step) for node in self.live}


def neighbours(order: tuple[str, ...]) -> set[frozenset[str]]:
    return {frozenset({order[place - 1], order[place]}) for place in range(len(order))}


def test_all_go_by_an_order_without_the_slow_link_from_the_same_step_on() -> None:
    talking = Talking()
    talking.speak(5)  # b, c and d tell a
    assert talking.orders(1000) == {()}
    talking.speak(6)
    assert talking.orders(5 + AHEAD) == {()}
    (order,) = talking.orders(6 + AHEAD)
    assert sorted(order) == list("abcd")
    assert neighbours(order).isdisjoint(A_B)


def test_without_one_nodes_measurement_there_is_none_and_who_missed_it_is_told_again() -> None:
    talking = Talking()
    for step in range(5):
        talking.speak(step, silent=C)
    assert talking.orders(1000) == {()}
    talking.speak(5)
    talking.speak(6, deaf=D)
    assert talking.nodes[D].at(1000) == ()
    talking.speak(7)
    (order,) = talking.orders(1000)
    assert order


def test_another_order_needs_to_be_much_better_and_the_one_before_holds_until_its_step() -> None:
    talking = Talking()
    for step in (0, 1):
        talking.speak(step)
    (first,) = talking.orders(100)
    talking.slow = frozenset()  # now all are alike
    for step in range(2, 2 + 2 * EVERY):
        talking.speak(step)
    assert talking.orders(100 + 2 * EVERY) == {first}
    talking.slow = frozenset(list(neighbours(first))[:1])
    for step in range(100, 100 + 2 * EVERY):
        talking.speak(step)
    (second,) = talking.orders(1000)
    assert neighbours(second).isdisjoint(talking.slow)
    assert talking.orders(99) == {first}


def test_the_next_one_leads_where_the_first_is_away_and_only_the_first_is_believed() -> None:
    talking = Talking()
    for step in (0, 1):
        talking.speak(step)
    (before,) = talking.orders(50)
    talking.nodes[C].heard(OrderTold(D, 0, ("d", "c")), NODES)  # d is not the first
    for wrong in (("a", "a", "b"), ("a", "x"), ()):
        talking.nodes[C].heard(OrderTold(A, 0, wrong), NODES)
    assert talking.nodes[C].at(50) == before
    talking.live.remove(A)
    talking.slow = frozenset({frozenset("bc")})
    for step in (10, 11):
        talking.speak(step)
    (after,) = talking.orders(11 + AHEAD)
    assert sorted(after) == list("bcd")
    talking.nodes[B].heard(OrderTold(C, 0, ("d", "c")), talking.live)
    assert talking.orders(11 + AHEAD) == {after}


def test_a_first_node_that_was_restarted_is_followed_again() -> None:
    talking = Talking()
    for step in range(2 * EVERY):
        talking.speak(step)
    (before,) = talking.orders(1000)
    talking.nodes[A] = Agreement(Measured(), "abcd")
    talking.slow = frozenset({frozenset(before[1:3])})
    for step in (100, 101):
        talking.speak(step)
    (order,) = talking.orders(101 + AHEAD)
    assert neighbours(order).isdisjoint(talking.slow)


def test_measurements_of_strangers_are_passed_over() -> None:
    agreement = Agreement(Measured(), "ab")
    agreement.heard(WaysMeasured(B, {"x": FAST, "a": FAST}), [A, B])
    ((to, told),) = agreement.says(A, [A, B], {"b": FAST}, 0)
    assert (to, told) == (B, OrderTold(A, AHEAD, ("a", "b")))


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_until_there_is_an_order_each_sends_to_every_other_one_in_turn(n: int) -> None:
    topology, swarm = Measured(), Swarm(tuple("abcdefg"[:n]))
    graphs = [topology.graph(step, swarm) for step in range(topology.period(swarm))]
    assert union(graphs) == tuple(tuple(other for other in range(n) if other != node) for node in range(n))
    assert all(len(targets) <= 1 for graph in graphs for targets in graph)
    assert is_strongly_connected(union(graphs))


def test_the_planner_goes_by_the_order_of_the_step_with_whoever_is_there() -> None:
    talking = Talking()
    for step in (0, 1):
        talking.speak(step)
    planner = Planner(Measured(), Uniform(), 3, agreement=talking.nodes[A])
    (order,) = talking.orders(20)
    for gone in (None, C):
        live = [node for node in NODES if node != gone]
        left = [name for name in order if gone is None or name != gone.node]
        for place, name in enumerate(left):
            (share,) = planner.plan(20, Incarnation(name), live).shares
            assert share.peer.node == left[(place + 1) % len(left)]


def test_where_somebody_is_not_in_the_order_each_sends_to_every_other_one_again() -> None:
    topology, live = Measured(), tuple("abcd")
    known, unknown = Swarm(live, order=tuple("dcbax")), Swarm(live, order=("a", "b", "d"))
    assert (topology.period(known), topology.period(unknown)) == (1, 3)
    assert [topology.graph(step, unknown) for step in range(3)] == [
        topology.graph(step, Swarm(live)) for step in range(3)
    ]
    assert topology.graph(5, known) == ((3,), (0,), (1,), (2,))


def spec_of(protocol: str, topology: str) -> GossipSpec:
    spec = parse_toml(
        f'name = "unit"\nmode = "gossip"\n[task]\nname = "digits"\n[gossip]\nprotocol = "{protocol}"\n'
        f'topology = {{ name = "{topology}" }}\n'
    )
    assert isinstance(spec, GossipSpec)
    return spec


def test_only_where_senders_choose_their_shares_nodes_may_go_by_different_orders() -> None:
    for protocol in ("sgp", "agp"):
        require_possible(spec_of(protocol, "measured"), list("abcd"))
    with pytest.raises(SpecError, match='"measured" goes by an order'):
        require_possible(spec_of("epidemic", "measured"), list("abcd"))
    assert planner_of(spec_of("sgp", "measured"), agreeing="abcd").agreement is not None
    assert planner_of(spec_of("sgp", "measured")).agreement is None  # in a simulation nobody measures
    assert planner_of(spec_of("sgp", "ring"), agreeing="abcd").agreement is None
    assert Random().order("ba", {}) == ("b", "a")
    assert Random().length("ba", {}) == 0
