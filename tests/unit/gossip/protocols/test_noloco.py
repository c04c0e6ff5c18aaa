"""NoLoCo by its formulas: pairs, the mean that pulls keep, and what drives nodes apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from covey.errors import SpecError
from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.protocols.contract import Context, Received, State
from covey.gossip.protocols.noloco import NoLoCo, spread_factor
from covey.gossip.protocols.runs import require_possible
from covey.gossip.push_sum.events import Arrived
from covey.gossip.push_sum.exchange import Exchange
from covey.testing.swarm_ports import ArrayAlgebra
from tests.unit.gossip.protocols.dense import DenseNodes, Vector, spec_of

D = 5


def pairs(n: int, step: int) -> Vector:
    """Nodes in random pairs, the last one alone where n is odd."""
    order, matrix = np.random.default_rng(step).permutation(n), np.eye(n)
    for a, b in zip(order[0 : n - 1 : 2], order[1::2], strict=False):
        matrix[[a, b], [a, b]] = matrix[[a, b], [b, a]] = 0.5
    return matrix


class Alone(NoLoCo):
    """What the machine does: it asks for mixing also where nothing came."""


def run(n: int, steps: int, *, drift: float = 0.0, **options: float) -> tuple[DenseNodes, Vector]:
    """Nodes at random places that train toward nothing, or by `drift`; and the same by the paper's formulas."""
    rng = np.random.default_rng(n)
    first = rng.normal(size=(n, D))
    pulls = drift * rng.normal(size=(n, D))
    nodes = DenseNodes.at(NoLoCo(options), list(first))
    phi, m = first.copy(), np.zeros_like(first)
    mu, rate, pull = nodes.protocol.options.momentum, nodes.protocol.options.rate, nodes.protocol.options.pull
    for step in range(steps):
        matrix = pairs(n, step)
        nodes.train(step, lambda node, z: pulls[node])
        nodes.mix(step, matrix)
        for node, state in enumerate(nodes.states):
            if matrix[node, node] == 1.0:
                update = nodes.protocol.mix(state, [], nodes.context)
                nodes.states[node] = type(state)(state.model + update.change, {**state.vectors, **update.vectors})
        m = mu * m + rate * matrix @ pulls + pull * (matrix @ phi - phi)
        phi = phi + m
    return nodes, phi


@pytest.mark.parametrize("n", [2, 5, 8])
def test_it_is_the_recursion_also_with_an_odd_node(n: int) -> None:
    nodes, phi = run(n, 12, drift=0.3)
    assert np.allclose(nodes.models, phi, rtol=1e-12, atol=1e-12)


def test_pulls_keep_the_mean() -> None:
    nodes, _ = run(8, 60)
    first = np.random.default_rng(8).normal(size=(8, D))
    assert np.allclose(nodes.models.mean(0), first.mean(0), atol=1e-13)
    assert np.abs(nodes.models - nodes.models.mean(0)).max() < 1e-3


@pytest.mark.parametrize(
    ("momentum", "pull", "diverges"), [(0.9, 0.7, True), (0.9, 0.2, False), (0.5, 0.7, False), (0.95, 0.5, True)]
)
def test_the_criterion_says_what_nodes_do(momentum: float, pull: float, diverges: bool) -> None:
    assert (spread_factor(momentum, pull) >= 1) == diverges
    models = run(16, 400, momentum=momentum, pull=pull)[0].models
    spread = np.abs(models - models.mean(0)).max()
    assert spread > 1e3 if diverges else spread < 1e-2
    given: dict[str, Any] = {"momentum": momentum, "pull": pull}
    spec = spec_of(protocol={"name": "noloco", "options": given}, topology={"name": "matching"})
    if diverges:
        with pytest.raises(SpecError, match=r"gossip\.protocol\.options\.pull: .* drives the nodes apart"):
            require_possible(spec)
    else:
        require_possible(spec)


def test_who_joins_without_mass_takes_over_what_came() -> None:
    me, peer = Incarnation("a", 2), Incarnation("b")
    exchange = Exchange(me, [peer], 0, 2 * ONE, is_met=True)
    exchange.arrived(Arrived(peer, 1, ONE // 2, 3, 0.0), 20, ONE)
    portions = exchange.only_mutual(exchange.pending, 4, ())
    assert [portion.source for portion in portions] == [peer]
    exchange.pending = []  # mixed in: from now on it has mass
    exchange.arrived(Arrived(peer, 2, ONE // 4, 4, 0.0), 20, ONE)
    assert exchange.only_mutual(exchange.pending, 4, ()) == []
    assert (exchange.pending, exchange.kept) == ([], 3 * ONE // 4)
    context = Context(ArrayAlgebra(), spec_of())
    given, trained = np.full(D, 4.0), np.ones(D)
    state: State[Any] = State(np.zeros(D), {"difference": trained})
    update = NoLoCo().mix(state, [Received(1.0, given, {"difference": trained})], context)
    assert (state.model + update.change).tolist() == given.tolist()
    assert not np.any(update.vectors["momentum"])
