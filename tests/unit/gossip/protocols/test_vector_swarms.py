"""Protocols with vectors beside the model, on a network that loses, doubles and reorders, among nodes that crash.

What the formulas keep is kept whatever happens: the sum of all trackers is that of all gradients; the mean of the slow
weights stays where it is, for both of a pair step with each other or neither.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.testing.swarms import VirtualNode
from tests.unit.gossip.protocols.dense import Vector, spec_of
from tests.unit.gossip.protocols.vector_nodes import VectorSwarm, in_lock_step
from tests.unit.gossip.storms import ALWAYS, EVENTS, Storm, schedules, stormy

D = 3
SEEDS = (None, 1, 2)


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


def has_begun_anew(node: VirtualNode) -> bool:
    """Whether it trained since it heard of the newest eviction: who was through by then tracks nothing any more."""
    body: Any = node.executor.model
    return node.finished == "left" or body.stamp == len(node.ledger.evicted)


@stormy(20)
@given(
    schedule=schedules,
    n=st.integers(2, 5),
    topology=st.sampled_from(["exponential", "ring", "random"]),
    slow=st.booleans(),
)
def test_trackers_sum_up_to_gradients_in_storms(schedule: bytes, n: int, topology: str, slow: bool) -> None:
    spec = spec_of(protocol="gradient-tracking", steps=8, topology={"name": topology})
    swarm = VectorSwarm(spec, models_of(n), slope, has_slow_disks=slow)
    swarm.begin()
    storm = Storm(swarm, events=(*ALWAYS, "leave", "evict"))
    storm.rage(schedule)
    storm.end()
    if all(map(has_begun_anew, swarm.nodes.values())):
        check_tracking(swarm)


@stormy(20)
@given(schedule=schedules, n=st.integers(2, 5), slow=st.booleans(), is_whole=st.booleans())
def test_both_of_a_pair_step_together_or_neither_in_storms(schedule: bytes, n: int, slow: bool, is_whole: bool) -> None:
    spec = spec_of(protocol="noloco", steps=8, topology={"name": "matching"})
    swarm = VectorSwarm(spec, models_of(n), flat, has_slow_disks=slow)
    mean = swarm.models.mean(0)
    swarm.begin()

    def joins(me: Incarnation) -> None:
        swarm.join(me, models_of(n)["node-0"])

    storm = Storm(swarm, joins, strangers=False, events=ALWAYS if is_whole else tuple(EVENTS))
    storm.rage(schedule)
    storm.end()
    if is_whole:
        assert {node.finished for node in swarm.nodes.values()} == {"completed"}
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
    Storm(swarm, events=("deliver", "work")).rage(random.Random(3).randbytes(400))
    swarm.notify = VirtualNode.notice
    swarm.evict(list(swarm.nodes)[3])
    swarm.settle()
    check_tracking(swarm)
    best = sum(i * (1 + 0.1 * i) for i in range(3)) / sum(1 + 0.1 * i for i in range(3))
    assert np.abs(swarm.models - best).max() < 0.2  # of the three that are left; with the fourth it is 1.6
