"""What is known of push-sum and of topologies, held against this code: contraction, drift, mass on its way, the ball.

`docs/gossip.md` has the table. Models are the unit vectors, so a node's model after some steps is its row of the
product of the mixing matrices: what theory says of those is seen in what the machines and executors did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import Topology
from covey.gossip.topologies.given import Given
from covey.gossip.topologies.regular import Exponential, Ring
from covey.testing.swarm_ports import no_training
from covey.testing.swarms import VirtualSwarm
from tests.unit.gossip.networks import late_by

Training = Callable[[str, int, Any, float], Any]


def swarm_of(
    models: Any, topology: Topology, steps: int, *, training: Training = no_training, **policy: Any
) -> VirtualSwarm:
    """A swarm whose i-th node begins with row i."""
    names = {f"node-{i:02}": row.copy() for i, row in enumerate(models)}
    return VirtualSwarm(names, Planner(topology, Uniform(), 7), PushSumPolicy(steps, **policy), training)


def mixed(topology: Topology, n: int, steps: int) -> Any:
    """The product of the mixing matrices of so many steps, as the nodes made it: float64 [n, n]."""
    swarm = swarm_of(np.eye(n), topology, steps)
    swarm.begin()
    swarm.run()
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    return np.stack([node.z * (node.ledger.live / ONE) for node in swarm.nodes.values()])


def contraction(product: Any) -> float:
    """What is left of a disagreement, at most: the second largest singular value."""
    n = len(product)
    return float(np.linalg.svd(product - np.ones((n, n)) / n, compute_uv=False)[0])


@pytest.mark.parametrize(
    ("n", "left"), [(4, 0), (8, 0), (16, 0), (32, 0), (5, 0.20), (6, 0.22), (7, 0.125), (12, 0.21)]
)
def test_what_log2_n_steps_of_one_peer_leave(n: int, left: float) -> None:
    assert contraction(mixed(Exponential(), n, (n - 1).bit_length())) == pytest.approx(left, abs=0.005)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_fixed_graphs_contract_as_fast_as_theory_says(n: int) -> None:
    digits = (n - 1).bit_length()
    edges = [(f"node-{i:02}", f"node-{(i + 2**k) % n:02}") for i in range(n) for k in range(digits)]
    assert contraction(mixed(Given({"edges": edges}), n, 1)) == pytest.approx(1 - 2 / (1 + digits))
    assert contraction(mixed(Ring({"directions": 1}), n, 1)) == pytest.approx(math.cos(math.pi / n))
    assert contraction(mixed(Ring(), n, 1)) == pytest.approx((1 + 2 * math.cos(2 * math.pi / n)) / 3)


@pytest.mark.parametrize(("steps", "error"), [(20, 1e-4), (50, 1e-10)])
def test_where_degrees_differ_the_weight_is_what_makes_the_mean_right(steps: int, error: float) -> None:
    models = np.random.default_rng(3).standard_normal((8, 3))
    hub = [(f"node-{a:02}", f"node-{b:02}") for a in range(8) for b in ((a + 1) % 8, (a * a + 3) % 8, 0) if a != b]
    swarm = swarm_of(models, Given({"edges": hub}), steps)
    swarm.begin()
    swarm.run()
    assert swarm.audit().live == 8 * ONE
    weights = np.array([[node.ledger.live / ONE] for node in swarm.nodes.values()])
    z = np.stack([node.z for node in swarm.nodes.values()])
    assert np.abs(z - models.mean(0)).max() < error
    assert np.abs((weights * z).mean(0) - models.mean(0)).max() < 1e-12
    assert np.abs(weights * z - models.mean(0)).max() > 0.2  # undivided, as a system without weights would have it


def test_whoever_averages_what_it_got_agrees_on_something_else_where_degrees_differ() -> None:
    models = np.random.default_rng(3).standard_normal((8, 3))
    hub = [(f"node-{a:02}", f"node-{b:02}") for a in range(8) for b in ((a + 1) % 8, (a * a + 3) % 8, 0) if a != b]
    names = {f"node-{i:02}": row.copy() for i, row in enumerate(models)}
    planner = Planner(Given({"edges": hub}), Uniform(), 7, weighs="receiver")
    swarm = VirtualSwarm(names, planner, PushSumPolicy(50, least=0, weighs="receiver"))
    swarm.begin()
    swarm.run()
    z = np.stack([node.z for node in swarm.nodes.values()])
    assert np.abs(z - z.mean(0)).max() < 1e-6
    assert np.abs(z.mean(0) - models.mean(0)).max() > 0.2


@pytest.mark.parametrize("late", [1, 3])
def test_batches_that_are_late_by_so_many_steps_hold_as_much_of_the_mass(late: int) -> None:
    n = 8
    swarm = swarm_of(np.eye(n), Exponential(), 10_000, overlap=late, max_in_flight=late + 1)
    swarm.begin()
    live = list(late_by(swarm, late, 60))
    assert swarm.audit().is_exact
    assert np.mean(live[30:]) == pytest.approx(n / (1 + late / 2), rel=0.02)


def test_steps_of_bounded_length_keep_the_nodes_in_a_ball() -> None:
    n, length = 8, 0.1
    beta = (1 + 2 * math.cos(2 * math.pi / n)) / 3
    bound = math.sqrt(n) * length * beta / (1 - beta)

    def away(node: str, step: int, z: Any, scale: float) -> Any:
        """All along the slowest mode of the ring, and each by the whole length: nothing drives them further apart."""
        angle = 2 * math.pi * int(node[-2:]) / n
        return z + scale * length * np.array([math.cos(angle), math.sin(angle)])

    for steps in (5, 40):
        swarm = swarm_of(np.zeros((n, 2)), Ring(), steps, training=away)
        swarm.begin()
        swarm.run()
        models = np.stack([node.z for node in swarm.nodes.values()])
        radius = np.linalg.norm(models - models.mean(0))
        assert radius == pytest.approx(bound * (1 - beta**steps), rel=1e-9)  # the ball is no wider than it has to be
