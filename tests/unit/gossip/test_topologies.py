"""Covey's topologies: the conformance suite, and what each is for."""

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typing_extensions import override

from covey.errors import SpecError
from covey.gossip.graph import Graph, graph_of, in_neighbours
from covey.gossip.ledger import Incarnation
from covey.gossip.mixing import MetropolisHastings, Mixing, Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum.weighing import Weighs
from covey.gossip.topologies.contract import TOPOLOGIES, LinkQuality, Swarm, Topology
from covey.gossip.topologies.given import Given, read_edges
from covey.gossip.topologies.measured import Measured
from covey.gossip.topologies.random import Matching
from covey.gossip.topologies.regular import Exponential, Ring
from covey.gossip.topologies.sites import TwoLevel
from covey.testing.topologies import MixingConformance, TopologyConformance, swarm_of

STAR = [[f"node-{a}", f"node-{b}"] for i in range(1, 32) for a, b in ((0, i), (i, 0))]


class _Topology(TopologyConformance):
    name = ""
    options: ClassVar[dict[str, Any]] = {}

    def make(self) -> Topology:
        return TOPOLOGIES.make(self.name, self.options)


class TestExponential(_Topology):
    name = "exponential"


class TestExponentialOfTwoPeers(_Topology):
    name, options = "exponential", {"peers": 2}


class TestRing(_Topology):
    name = "ring"


class TestDirectedRing(_Topology):
    name, options = "ring", {"directions": 1}


class TestComplete(_Topology):
    name = "complete"


class TestRandom(_Topology):
    name = "random"


class TestMatching(_Topology):
    name = "matching"


class TestTwoLevel(_Topology):
    name, options = "two-level", {"between_every": 3}


class TestMeasuredRing(_Topology):
    name = "measured"


class TestMeasuredExponential(_Topology):
    name, options = "measured", {"shape": "exponential"}


class TestFile(_Topology):
    name, options = "file", {"edges": STAR}


class TestUniform(MixingConformance):
    def make(self) -> Mixing:
        return Uniform()


class TestMetropolisHastings(MixingConformance):
    def make(self) -> Mixing:
        return MetropolisHastings()


class Waning(Mixing):
    """1 / n, with n nodes there, at first; always less of it. Symmetric where edges go both ways."""

    needs_symmetric = True
    doubly_stochastic = True

    @override
    def shares(self, graph: Graph, node: int, step: int, swarm: Swarm) -> dict[int, Fraction]:
        return dict.fromkeys(graph[node], Fraction(1, len(swarm.nodes) * (step + 1)))


class TestWaning(MixingConformance):
    def make(self) -> Mixing:
        return Waning()


@pytest.mark.parametrize("weighs", ["mass", "receiver"])
def test_weights_follow_the_step_and_who_is_there(weighs: Weighs) -> None:
    planner = Planner(Ring({"directions": 2}), Waning(), 3, weighs=weighs)
    nodes = [Incarnation(name) for name in "abcd"]
    for step, there, part in ((0, nodes, Fraction(1, 4)), (4, nodes, Fraction(1, 20)), (4, nodes[:3], Fraction(1, 15))):
        planned = planner.plan(step, nodes[0], there)
        shares = {share.peer: Fraction(share.numerator, share.denominator) for share in planned.shares}
        assert shares == {there[1]: part, there[-1]: part}
        weights = {share.peer: Fraction(share.numerator, share.denominator) for share in planned.weights}
        assert weights == (shares if weighs == "receiver" else {})


def matrix(graph: Graph, mixing: Mixing) -> Any:
    """Column-stochastic: entry (i, j) is what j gives to i."""
    p = np.zeros((len(graph), len(graph)))
    for node in range(len(graph)):
        shares = mixing.shares(graph, node, 0, swarm_of(len(graph)))
        for target, share in shares.items():
            p[target, node] = float(share)
        p[node, node] = 1 - float(sum(shares.values()))
    return p


def second_singular_value(p: Any) -> float:
    n = len(p)
    return float(np.linalg.svd(p - np.ones((n, n)) / n, compute_uv=False)[0])


@pytest.mark.parametrize(
    ("n", "left"), [(4, 0), (8, 0), (16, 0), (32, 0), (5, 0.20), (6, 0.22), (7, 0.125), (12, 0.21)]
)
def test_one_peer_exponential_is_exact_for_powers_of_two(n: int, left: float) -> None:
    product = np.eye(n)
    for step in range(Exponential().period(swarm_of(n))):
        product = matrix(Exponential().graph(step, swarm_of(n)), Uniform()) @ product
    assert second_singular_value(product) == pytest.approx(left, abs=0.005)


@pytest.mark.parametrize("n", [9, 27])
def test_two_peer_exponential_is_exact_for_powers_of_three(n: int) -> None:
    topology, product = Exponential({"peers": 2}), np.eye(n)
    for step in range(topology.period(swarm_of(n))):
        product = matrix(topology.graph(step, swarm_of(n)), Uniform()) @ product
    assert second_singular_value(product) < 1e-12


@pytest.mark.parametrize("n", [8, 16, 32])
def test_rings_contract_as_fast_as_theory_says(n: int) -> None:
    both = matrix(Ring().graph(0, swarm_of(n)), Uniform())
    one = matrix(Ring({"directions": 1}).graph(0, swarm_of(n)), Uniform())
    assert second_singular_value(both) == pytest.approx((1 + 2 * np.cos(2 * np.pi / n)) / 3)
    assert second_singular_value(one) == pytest.approx(np.cos(np.pi / n))


def test_a_matching_pairs_everybody_but_the_odd_one() -> None:
    for n in (6, 7):
        graph = Matching().graph(4, swarm_of(n))
        assert sorted(map(len, graph)) == [0] * (n % 2) + [1] * (n - n % 2)
        assert graph != Matching().graph(5, swarm_of(n))


def test_two_levels_send_between_sites_now_and_then_only() -> None:
    swarm, topology = swarm_of(9), TwoLevel({"between_every": 2})
    for step in range(6):
        graph = topology.graph(step, swarm)
        between = [(a, b) for a, targets in enumerate(graph) for b in targets if a % 3 != b % 3]
        assert len(between) == (3 if step % 2 == 0 else 0)
        assert all(set(range(a % 3, 9, 3)) - {a} <= set(graph[a]) for a in range(9))


def test_the_measured_order_is_the_shortest_tour() -> None:
    place = [0, 3, 1, 4, 2, 5]  # where the nodes are along a line
    names = tuple(f"node-{i}" for i in range(6))
    pairs = list(itertools.permutations(range(6), 2))
    cost = {(a, b): 10.0 ** abs(place[a] - place[b]) for a, b in pairs}
    links = {(names[a], names[b]): LinkQuality(1e8 / cost[a, b], 0.0) for a, b in pairs}
    graph = Measured().graph(0, Swarm(names, links=links))
    assert all(len(targets) == 1 for targets in (*graph, *in_neighbours(graph)))
    tours = [(0, *rest) for rest in itertools.permutations(range(1, 6))]
    best = min(sum(cost[a, b] for a, b in itertools.pairwise([*tour, 0])) for tour in tours)
    assert sum(cost[a, targets[0]] for a, targets in enumerate(graph)) == best


def test_edges_are_read_from_networkx_json_and_from_lists(tmp_path: Path) -> None:
    lines = tmp_path / "graph.txt"
    lines.write_text("\ufeffa b  # the first\n\nb c 0.5\r\nc a\n")
    assert read_edges(lines) == (("a", "b"), ("b", "c"), ("c", "a"))
    networkx = tmp_path / "graph.json"
    edges = [{"source": "a", "target": "b"}]
    networkx.write_text(json.dumps({"directed": False, "nodes": [{"id": "a"}, {"id": "b"}], "edges": edges}))
    assert read_edges(networkx) == (("a", "b"), ("b", "a"))
    networkx.write_text('{"nodes": []}')
    with pytest.raises(SpecError, match="no node-link graph"):
        read_edges(networkx)
    lines.write_text("a b\nc\n")
    with pytest.raises(SpecError, match="line 2"):
        read_edges(lines)


def test_who_is_a_site_is_said_by_the_specification_and_else_by_the_peers_file() -> None:
    options = {"sites": {"b": ["node-0", "node-2"], "a": ["node-3", "node-9"]}, "between_every": 2}
    two = TOPOLOGIES.make("two-level", options)
    of_peers = {"node-0": "a", "node-1": "a"}  # of node-0 the specification says another one
    for sites, inside in (({}, [(2,), (), (0,), (), ()]), (of_peers, [(2,), (3,), (0,), (1,), ()])):
        swarm = Swarm(swarm_of(5).nodes, sites=sites)
        assert two.graph(1, swarm) == graph_of(inside)
        assert two.graph(0, swarm) != two.graph(1, swarm)
    assert two.period(Swarm(swarm_of(5).nodes)) == 2 * 2  # b, a, and two that are their own


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ({"a": ["n0", "n1"], "b": ["n1"]}, r"sites: .*a node is in one site, and once: n1"),
        ({"a": ["n0", "n0"]}, r"sites: .*in one site, and once: n0"),
        ({"a": "n0"}, r"sites\.a: "),
        (["n0"], r"sites: "),
    ],
)
def test_sites_that_are_none_are_refused(sites: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        TOPOLOGIES.make("two-level", {"sites": sites})


def test_a_listed_graph_that_falls_apart_goes_round_the_rest() -> None:
    star = Given({"edges": STAR})
    assert star.graph(0, swarm_of(4)) == graph_of([(1, 2, 3), (0,), (0,), (0,)])
    alive = Swarm(("node-1", "node-2", "node-3"))
    assert star.graph(0, alive) == graph_of([(1,), (2,), (0,)])


def test_options_are_checked() -> None:
    with pytest.raises(SpecError, match="peers"):
        TOPOLOGIES.make("exponential", {"peers": 0})
    with pytest.raises(SpecError, match=r"gossip\.topology\.options"):
        TOPOLOGIES.make("ring", {"direction": 1})
