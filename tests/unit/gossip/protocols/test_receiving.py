"""Protocols in which the receiver weighs: against dense matrices in float64, on bad networks, and under attack."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from covey.errors import SpecError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.protocols.runs import impossible_in, planner_of, policy_of, require_possible
from covey.gossip.push_sum import actions as act
from covey.gossip.push_sum import events as ev
from covey.gossip.push_sum.machine import PushSum, PushSumPolicy
from covey.node.gossip.folders import joins_with
from covey.testing.protocols import averaged, gossip_run, models_of
from covey.testing.swarm_ports import Message, Vector, no_training
from covey.testing.swarms import VirtualSwarm, uneven
from tests.unit.gossip.networks import run_lossy

MH = {"name": "metropolis-hastings"}
COMPLETE = {"name": "complete"}
EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4), (0, 2)]
"""A connected graph of six nodes with degrees from 2 to 4, both ways."""
LISTED = [[f"node-{a}", f"node-{b}"] for i, j in EDGES for a, b in ((i, j), (j, i))]
IRREGULAR = {"name": "file", "options": {"edges": LISTED}}
N, D, LR = 6, 5, 0.1
Rule = Callable[[Vector, int], Vector]
"""(all models after training, float64 [n, d], node) -> its new model."""


def neighbours(node: int) -> list[int]:
    return sorted({b for a, b in EDGES if a == node} | {a for a, b in EDGES if b == node})


def metropolis() -> Vector:
    """W, float64 [n, n]."""
    degree = [len(neighbours(node)) for node in range(N)]
    weights = np.zeros((N, N))
    for i in range(N):
        for j in neighbours(i):
            weights[i, j] = 1 / (1 + max(degree[i], degree[j]))
        weights[i, i] = 1 - weights[i].sum()
    return weights


W = metropolis()


def by_matrix(y: Vector, i: int) -> Vector:
    mixed: Vector = W[i] @ y
    return mixed


def by_clipping(y: Vector, i: int) -> Vector:
    differences = {j: y[j] - y[i] for j in neighbours(i)}
    norms = sorted(map(np.linalg.norm, differences.values()), reverse=True)
    clipped = {j: v * min(1, norms[1] / np.linalg.norm(v)) for j, v in differences.items()}
    mixed: Vector = y[i] + np.sum([W[i, j] * v for j, v in clipped.items()], axis=0)
    return mixed


def by_nearness(y: Vector, i: int) -> Vector:
    near = sorted([i, *neighbours(i)], key=lambda j: float(np.linalg.norm(y[j] - y[i])))
    mean: Vector = y[near[:-1]].mean(axis=0)
    return mean


def by_trimming(y: Vector, i: int) -> Vector:
    mean: Vector = np.sort(y[[i, *neighbours(i)]], axis=0)[1:-1].mean(axis=0)
    return mean


def first_models(n: int = N, d: int = D) -> dict[str, Vector]:
    rng = np.random.default_rng(11)
    return {f"node-{i}": rng.standard_normal(d) for i in range(n)}


def descend(node: str, step: int, z: Vector, scale: float) -> Vector:
    """A step towards the node's own optimum, which is its number in each coordinate."""
    assert scale == 1.0
    return z - LR * (z - float(node.removeprefix("node-")))


@pytest.mark.parametrize(
    ("protocol", "rule", "mixing"),
    [
        ("d-psgd", by_matrix, MH),
        ("clipped-gossip", by_clipping, MH),
        ("nearest-neighbour-averaging", by_nearness, {"name": "uniform"}),
        ("trimmed-mean", by_trimming, {"name": "uniform"}),
    ],
)
def test_each_is_what_its_equation_says(protocol: str, rule: Rule, mixing: Any) -> None:
    spec = gossip_run(protocol=protocol, topology=IRREGULAR, mixing=mixing, steps=12)
    if protocol != "d-psgd":  # some nodes have two neighbours
        needed = 6 if rule is by_nearness else 3
        with pytest.raises(SpecError, match=rf"options.f: with 1 Byzantine neighbours a node needs {needed} .* has 2"):
            require_possible(spec, list(first_models()))
    models = first_models()
    swarm = unchecked(spec, models, descend)
    swarm.begin()
    swarm.run()
    x = np.stack(list(models.values()))
    for _ in range(12):
        y = x - LR * (x - np.arange(N)[:, None])
        x = np.stack([rule(y, i) for i in range(N)])
    assert np.stack(list(models_of(swarm).values())) == pytest.approx(x, abs=1e-13)


def unchecked(spec: Any, models: dict[str, Vector], training: Any = no_training) -> VirtualSwarm:
    return VirtualSwarm(models, planner_of(spec), policy_of(spec.gossip, len(models)), training, spec=spec)


def test_epidemic_learning_is_the_mean_of_what_a_node_got_and_its_own() -> None:
    spec = gossip_run(protocol="epidemic", topology={"name": "random"}, steps=9)
    models = first_models(8)
    swarm = averaged(spec, models)
    x = np.stack(list(models.values()))
    names = tuple(Incarnation(name) for name in models)
    received: list[int] = []
    for step in range(9):
        plans = [swarm.planner.plan(step, me, names) for me in names]
        assert {len(plan.shares) for plan in plans} == {3}  # log2 8
        sources = [[i, *(names.index(sender) for sender in plan.senders)] for i, plan in enumerate(plans)]
        received += [len(nodes) - 1 for nodes in sources]
        x = np.stack([x[nodes].mean(axis=0) for nodes in sources])
    assert len(set(received)) > 2  # in-degrees differ, so rows do not sum to one by themselves
    assert np.stack(list(models_of(swarm).values())) == pytest.approx(x, abs=1e-13)


def test_the_mean_of_all_models_is_kept_by_symmetric_weights_and_by_no_rule() -> None:
    models = first_models(8)
    mean = np.mean(list(models.values()), axis=0)
    kept = averaged(gossip_run(protocol="d-psgd", topology={"name": "ring"}, mixing=MH, steps=40), models)
    assert np.mean(list(models_of(kept).values()), axis=0) == pytest.approx(mean, abs=1e-14)
    epidemic = averaged(gossip_run(protocol="epidemic", topology={"name": "random"}, steps=40), models)
    assert uneven(models_of(epidemic)) < 1e-6
    moved = np.abs(np.mean(list(models_of(epidemic).values()), axis=0) - mean).max()
    assert 1e-3 < moved < 1


# -- bad networks ------------------------------------------------------------------------------------------------------


def test_equal_weights_on_directed_circulant_edges_are_doubly_stochastic() -> None:
    rng = np.random.default_rng(8)
    models = {f"node-{i}": rng.standard_normal(D) for i in range(8)}
    swarm = averaged(gossip_run(protocol="d-psgd", topology={"name": "exponential"}, steps=3), models)
    assert np.abs(np.stack(list(models_of(swarm).values())) - np.mean(list(models.values()), axis=0)).max() < 1e-12
    for other in ({"topology": {"name": "random"}}, {"topology": IRREGULAR}):
        with pytest.raises(SpecError, match='choose "metropolis-hastings"'):
            require_possible(gossip_run(protocol="d-psgd", **other), [f"node-{i}" for i in range(N)])
    with pytest.raises(SpecError, match="edges that go both ways"):
        require_possible(gossip_run(protocol="clipped-gossip", topology={"name": "exponential"}))


@pytest.mark.parametrize("protocol", ["d-psgd", "epidemic", "trimmed-mean"])
def test_lost_doubled_and_late_messages_change_not_one_bit(protocol: str) -> None:
    more = {"d-psgd": {"topology": {"name": "ring"}, "mixing": MH}, "epidemic": {"topology": {"name": "random"}}}
    spec = gossip_run(protocol=protocol, steps=12, **more.get(protocol, {"topology": COMPLETE}))
    good = VirtualSwarm.of_run(spec, first_models(), descend)
    good.begin()
    good.run()
    bad = VirtualSwarm.of_run(spec, first_models(), descend)
    bad.begin()
    run_lossy(bad, random.Random(3), loss=0.3)
    assert {name: z.tobytes() for name, z in models_of(good).items()} == {
        name: z.tobytes() for name, z in models_of(bad).items()
    }
    for swarm in (good, bad):
        audit = swarm.audit()
        assert (audit.is_exact, audit.in_flight, audit.live) == (True, 0, N * ONE)
    batches = sum(edge.sequence for node in bad.nodes.values() for edge in node.ledger.out.values())
    assert batches == sum(edge.sent for node in bad.nodes.values() for edge in node.ledger.out.values())
    assert batches == sum(edge.applied for node in bad.nodes.values() for edge in node.ledger.into.values())


def test_a_node_that_crashes_anywhere_comes_to_the_same_models() -> None:
    spec = gossip_run(protocol="d-psgd", topology={"name": "ring"}, mixing=MH, steps=8)
    good = VirtualSwarm.of_run(spec, first_models(), descend)
    good.begin()
    good.run()
    for seed in range(6):
        rng = random.Random(seed)
        swarm = VirtualSwarm.of_run(spec, first_models(), descend)
        swarm.begin()
        for _ in range(3):
            for _ in range(rng.randrange(10, 60)):
                if swarm.messages:
                    swarm.deliver(rng.randrange(len(swarm.messages)))
                for node in swarm.up:
                    node.finish_work()
            victim = rng.choice(swarm.up)
            if victim.machine.phase != "training" or victim.machine.step:
                victim.crash()
                victim.restart()
        swarm.settle()
        assert all(node.finished == "completed" for node in swarm.nodes.values())
        assert {name: z.tobytes() for name, z in models_of(swarm).items()} == {
            name: z.tobytes() for name, z in models_of(good).items()
        }
        assert swarm.audit().is_exact


def test_a_neighbour_that_is_away_leaves_its_weight_with_the_node_and_comes_late_for_nothing() -> None:
    a, b, c = map(Incarnation, "abc")
    machine = PushSum(a, PushSumPolicy(4, weighs="receiver", least=0), [b, c], is_met=True)
    machine.handle(ev.Begun(0.0))
    machine.handle(ev.Trained(0, 1.0))
    third = [ev.Share(peer, 1, 3) for peer in (b, c)]
    machine.handle(ev.Planned(0, tuple(third), (b, c), tuple(third)))
    machine.handle(ev.Published(0, 2.0))
    machine.handle(ev.Arrived(b, 1, 1, 0, 3.0))
    (mix,) = (action for action in machine.handle(ev.PeerSuspected(c, 4.0)) if isinstance(action, act.Mix))
    assert (mix.kept, [(p.source, p.units) for p in mix.portions]) == (2, [(b, 1)])  # a third of b, the rest its own
    actions = machine.handle(ev.Mixed(0, 5.0))
    assert any(isinstance(action, act.Train) and action.scale == 1.0 for action in actions)
    machine.handle(ev.Trained(1, 6.0))
    machine.handle(ev.Planned(1, (), (), ()))
    machine.handle(ev.Arrived(c, 1, 1, 0, 7.0))  # of the step before
    actions = machine.handle(ev.Published(1, 8.0))
    assert not [action for action in actions if isinstance(action, act.Mix)]
    assert machine.exchange.pending == []
    ledger = machine.exchange.ledger
    assert (ledger.into[c].applied, ledger.balance) == (1, ledger.live)


def test_a_batch_that_claims_more_than_one_unit_is_refused() -> None:
    a, b = map(Incarnation, "ab")
    machine = PushSum(a, PushSumPolicy(4, weighs="receiver"), [b], is_met=True)
    (refused,) = machine.handle(ev.Arrived(b, 1, 2, 0, 1.0))
    assert isinstance(refused, act.Refuse)
    assert "2 units; there are 1" in refused.reason


def test_who_leaves_hands_nothing_over_and_who_dies_is_not_waited_for() -> None:
    spec = gossip_run(protocol="d-psgd", topology=COMPLETE, mixing=MH, steps=10)
    swarm = VirtualSwarm.of_run(spec, first_models(), descend)
    swarm.begin()
    nodes = list(swarm.nodes.values())
    while nodes[0].machine.step < 4:
        if swarm.messages:
            swarm.deliver()
        for node in swarm.up:
            node.finish_work()
    nodes[1].take(ev.LeaveAsked(0.0))
    swarm.evict(nodes[2].me)
    swarm.settle()
    assert nodes[1].finished == "left"
    assert {node.finished for node in nodes if node not in (nodes[1], nodes[2])} == {"completed"}
    audit = swarm.audit()
    assert audit.findings == ()
    assert audit.live + audit.in_flight == audit.minted - audit.lost


# -- attacks -----------------------------------------------------------------------------------------------------------

HONEST, BYZANTINE = 11, 2
ROBUST = {"clipped-gossip": MH, "nearest-neighbour-averaging": {"name": "uniform"}, "trimmed-mean": {"name": "uniform"}}


class Attacked(VirtualSwarm):
    """Two of thirteen nodes send each of the others what `lie` says of it."""

    lie: Callable[[Vector, Vector], Vector]
    """(the honest models, float64 `[n, d]`; that of the receiver, `[d]`) -> what it is sent."""

    @property
    def honest(self) -> Vector:
        """The honest models, float64 `[n, d]`."""
        return np.stack([node.z for node in list(self.nodes.values())[:HONEST]])

    def send(self, message: Message) -> None:
        """Put a message on its way; a lie for a model."""
        is_lie = int(message.sender.node.removeprefix("node-")) >= HONEST
        if is_lie and message.body is not None:
            message = replace(message, body=self.lie(self.honest, self.nodes[message.receiver].z))
        super().send(message)


def attacked(protocol: str, lie: Callable[[Vector, Vector], Vector]) -> tuple[float, float]:
    """Squared bias of the honest nodes' mean, and their spread, after averaging with two that lie."""
    rng = np.random.default_rng(5)
    models: dict[str, Vector] = {f"node-{i:02}": rng.standard_normal(20) for i in range(HONEST + BYZANTINE)}
    options = {"f": BYZANTINE} if protocol in ROBUST else {}
    name, mixing = {"name": protocol, "options": options}, ROBUST.get(protocol, MH)
    swarm = Attacked.of_run(gossip_run(protocol=name, topology=COMPLETE, mixing=mixing, steps=12), models)
    assert isinstance(swarm, Attacked)
    swarm.lie = lie
    mean = swarm.honest.mean(axis=0)
    swarm.begin()
    swarm.run()
    bias = float(np.square(swarm.honest.mean(axis=0) - mean).mean())
    return bias, float(np.abs(swarm.honest - swarm.honest.mean(axis=0)).max())


def large(honest: Vector, receiver: Vector) -> Vector:
    return np.full_like(receiver, 1000.0)


def dissensus(honest: Vector, receiver: Vector) -> Vector:
    """What cancels all that the honest would move the receiver by: x - sum of W (x_j - x), over W of those who lie."""
    drift: Vector = (honest - receiver).sum(axis=0) / BYZANTINE
    return receiver - drift


def a_little(honest: Vector, receiver: Vector) -> Vector:
    """ALIE (Baruch et al., NeurIPS 2019): 1.5 standard deviations below the mean, where nobody stands out."""
    lie: Vector = honest.mean(axis=0) - 1.5 * honest.std(axis=0)
    return lie


@pytest.mark.parametrize(
    ("protocol", "lie", "most"),
    [
        ("clipped-gossip", large, 0.12),
        ("nearest-neighbour-averaging", large, 1e-9),
        ("trimmed-mean", large, 0.12),
        ("clipped-gossip", dissensus, 2e-4),
        ("nearest-neighbour-averaging", dissensus, 1e-9),
        ("trimmed-mean", dissensus, 0.02),
        ("clipped-gossip", a_little, 0.06),
        ("nearest-neighbour-averaging", a_little, 0.06),
        ("trimmed-mean", a_little, 0.12),
    ],
)
def test_t12_a_robust_protocol_bounds_what_two_of_thirteen_can_do(
    protocol: str, lie: Callable[[Vector, Vector], Vector], most: float
) -> None:
    bias, apart = attacked(protocol, lie)
    assert bias < most  # of honest models of variance 1
    assert apart < 1e-3


def test_t12_against_a_little_no_rule_is_much_better_than_the_mean() -> None:
    mean = attacked("d-psgd", a_little)[0]
    assert 0.01 < mean < 0.06
    assert attacked("trimmed-mean", a_little)[0] > mean


@pytest.mark.parametrize(("f", "least"), [(1, 7), (2, 13)])
def test_nearest_neighbours_need_six_times_as_many_as_may_lie_and_one(f: int, least: int) -> None:
    protocol = {"name": "nearest-neighbour-averaging", "options": {"f": f}}
    spec, names = gossip_run(protocol=protocol, topology=COMPLETE), [f"n{index}" for index in range(least)]
    require_possible(spec, names)
    with pytest.raises(SpecError, match=f"with {f} Byzantine neighbours a node needs {6 * f} .* has {6 * f - 1}"):
        require_possible(spec, names[1:])


def test_with_as_many_nodes_as_a_run_may_begin_with_the_bound_has_to_hold() -> None:
    spec = gossip_run(protocol="trimmed-mean", topology=COMPLETE)
    for nodes in (2, 3):
        ((key, text),) = impossible_in(spec, begins_with=nodes)
        assert key == "gossip.protocol.options.f"
        assert f"one has {nodes - 1} where the run begins with {nodes} nodes, as [gossip] min_nodes allows" in text
    assert impossible_in(spec, begins_with=4) == impossible_in(spec) == []
    assert impossible_in(spec, list("abcd"), begins_with=2) == []  # who takes part is known


def test_t12_the_mean_has_no_bound_and_never_comes_together() -> None:
    assert attacked("d-psgd", large)[0] > 1e4
    assert attacked("d-psgd", dissensus)[1] > 1.0


def test_an_incarnation_that_comes_late_has_units_as_all_have() -> None:
    assert joins_with(gossip_run(protocol="d-psgd", topology=COMPLETE, mixing=MH)) == ONE
    assert joins_with(gossip_run(protocol="sgp")) == 0
    assert joins_with(gossip_run(protocol="sgp", join="mint")) == ONE
    assert joins_with(gossip_run(protocol="ad-psgd")) == ONE
    assert joins_with(gossip_run(protocol="agp", join="split")) == 0
