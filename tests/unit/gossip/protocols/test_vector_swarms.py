"""Protocols with vectors beside the model, on a network that loses, doubles and reorders, among nodes that crash.

What the formulas keep is kept whatever happens: the sum of all trackers is that of all gradients; the mean of the slow
weights stays where it is, for both of a pair step with each other or neither.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covey.gossip.mass import ONE
from tests.unit.gossip.protocols.dense import Vector, spec_of
from tests.unit.gossip.protocols.vector_nodes import FAULTS, VectorSwarm, in_lock_step

D = 3
SEEDS = (None, 1, 2)
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def models_of(n: int) -> dict[str, Vector]:
    rng = np.random.default_rng(n)
    return {f"node-{i}": rng.standard_normal(D) for i in range(n)}


def slope(node: str, z: Vector) -> Vector:
    index = int(node.removeprefix("node-"))
    gradient: Vector = (1.0 + 0.1 * index) * (z - index)
    return gradient


def flat(node: str, z: Vector) -> Vector:
    return np.zeros_like(z)


def check_tracking(swarm: VectorSwarm) -> None:
    """All is mixed in at the end: the trackers, times their masses, sum up to the gradients."""
    trackers, gradients = np.zeros(D), np.zeros(D)
    for me, node in swarm.nodes.items():
        if node.finished == "left":
            continue
        assert not node.machine.exchange.pending
        trackers = trackers + swarm.vector(me, "tracker") * (node.ledger.live / ONE)
        gradients = gradients + swarm.vector(me, "gradient")
    assert np.abs(trackers - gradients).max() < 1e-9 * max(1.0, np.abs(gradients).max())


@QUICK
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(2, 5),
    topology=st.sampled_from(["exponential", "ring", "random"]),
    slow=st.booleans(),
)
def test_trackers_sum_up_to_gradients_whatever_happens(seed: int, n: int, topology: str, slow: bool) -> None:
    rng = random.Random(seed)
    spec = spec_of(protocol="gradient-tracking", steps=8, topology={"name": topology})
    swarm = VectorSwarm(spec, models_of(n), slope, has_slow_disks=slow)
    swarm.begin()
    more = {"suspect": 3.0, "leave": 0.3} | ({"evict": 0.4} if rng.random() < 0.5 else {})
    swarm.stir(rng, rng.randrange(20, 250), FAULTS | more)
    swarm.come_to_an_end()
    assert {node.finished for node in swarm.nodes.values()} <= {"completed", "left"}
    check_tracking(swarm)


@QUICK
@given(seed=st.integers(0, 2**32), n=st.integers(2, 5), slow=st.booleans())
def test_both_of_a_pair_step_together_or_neither(seed: int, n: int, slow: bool) -> None:
    rng = random.Random(seed)
    spec = spec_of(protocol="noloco", steps=8, topology={"name": "matching"})
    swarm = VectorSwarm(spec, models_of(n), flat, has_slow_disks=slow)
    mean = swarm.models.mean(0)
    swarm.begin()
    swarm.stir(rng, rng.randrange(20, 250), FAULTS | {"suspect": 3.0})
    swarm.come_to_an_end()
    assert {node.finished for node in swarm.nodes.values()} == {"completed"}
    assert swarm.audit().is_exact
    assert np.abs(swarm.models.mean(0) - mean).max() < 1e-12


@pytest.mark.parametrize(
    "gossip",
    [
        {"momentum": "quasi-global", "outer": "slow-momentum", "outer_every": 3},
        {"protocol": "gradient-tracking"},
        {"protocol": "noloco", "topology": {"name": "matching"}},
    ],
)
def test_in_lock_step_faults_change_not_one_bit(gossip: dict[str, object]) -> None:
    swarms = {seed: VectorSwarm(spec_of(steps=8, **gossip), models_of(5), slope, has_slow_disks=True) for seed in SEEDS}
    assert len({in_lock_step(swarm, seed, 400) for seed, swarm in swarms.items()}) == 1


def test_who_takes_nothing_from_an_evicted_node_tracks_the_others_gradients() -> None:
    spec = spec_of(protocol="gradient-tracking", steps=40, topology={"name": "complete"})
    swarm = VectorSwarm(spec, models_of(4), slope)
    swarm.begin()
    swarm.stir(random.Random(3), 200, {"deliver": 40.0, "work": 40.0})
    swarm.evict(list(swarm.nodes)[3])
    swarm.come_to_an_end()
    check_tracking(swarm)
    best = sum(i * (1 + 0.1 * i) for i in range(3)) / sum(1 + 0.1 * i for i in range(3))
    assert np.abs(swarm.models - best).max() < 0.2  # of the three that are left; with the fourth it is 1.6
