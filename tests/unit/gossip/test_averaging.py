"""Steps that only average: when they are, how many it takes, and that nodes come to one mean by them."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.averaging import Averaging, contraction, rounds_for
from covey.gossip.mass import ONE
from covey.gossip.mixing import Uniform
from covey.gossip.planning import Planner
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.regular import Ring, distances
from covey.node.gossip.state import TABLE
from covey.testing.swarm_ports import Vector
from covey.testing.swarms import VirtualSwarm, uneven

SIZES = (2, 3, 4, 5, 6, 7, 8, 12, 13, 16)


@given(every=st.integers(1, 7), rounds=st.integers(1, 6), trainings=st.integers(0, 40))
def test_a_cycle_has_so_many_trainings_and_then_rounds(every: int, rounds: int, trainings: int) -> None:
    averaging = Averaging(every, rounds)
    steps = averaging.steps(trainings)
    kinds = [averaging.is_round(step) for step in range(steps)]
    assert kinds.count(False) == trainings
    assert kinds.count(True) == trainings // every * rounds
    assert [averaging.trainings(step) for step in range(steps) if not kinds[step]] == list(range(trainings))
    assert kinds == [is_round for k in range(steps) for is_round in [False] * every + [True] * rounds][:steps]


def test_without_a_cycle_every_step_trains() -> None:
    averaging = Averaging(0, 5)
    assert (averaging.steps(7), averaging.trainings(6), averaging.is_round(6)) == (7, 6, False)


@pytest.mark.parametrize("n", SIZES)
def test_what_a_period_leaves_is_the_norm_of_the_product_of_its_matrices(n: int) -> None:
    product = np.eye(n)
    for d in distances(n):
        product = (np.eye(n) + np.roll(np.eye(n), d, axis=0)) / 2 @ product
    assert abs(np.linalg.norm(product - 1 / n, 2) - contraction(n)) < 1e-12


def test_for_each_number_of_nodes_the_least_number_of_periods_is_taken() -> None:
    for n in range(1, 70):
        for spread in (0.5, 0.01, 1e-6):
            rounds, period = rounds_for(n, spread), len(distances(n))
            left = contraction(n)
            assert left ** (rounds / period) <= spread * (1 + 1e-9)
            assert rounds == period or left ** (rounds / period - 1) > spread


def drifting(n: int, steps: int, averaging: Averaging) -> VirtualSwarm:
    """Nodes on a one-way ring, each of which trains toward a place of its own."""
    rng = np.random.default_rng(n)
    places = {f"node-{i:02}": rng.standard_normal(3) for i in range(n)}
    seen: dict[str, list[int]] = {name: [] for name in places}

    def training(node: str, step: int, z: Vector, scale: float) -> Vector:
        seen[node].append(step)
        assert scale == 1.0
        return z + 0.5 * (places[node] - z)

    models: dict[str, Vector] = {name: np.zeros(3) for name in places}
    policy = PushSumPolicy(averaging.steps(steps), averaging=averaging)
    swarm = VirtualSwarm(models, Planner(Ring({"directions": 1}), Uniform(), 7), policy, training)
    swarm.begin()
    swarm.run()
    assert all(trained == list(range(steps)) for trained in seen.values())
    assert all(node.finished == "completed" for node in swarm.nodes.values())
    assert swarm.audit().is_exact
    return swarm


def spread(models: Mapping[str, Vector]) -> float:
    """The Euclidean norm of all distances from the mean."""
    stacked = np.stack(list(models.values()))
    return float(np.linalg.norm(stacked - stacked.mean(0)))


@pytest.mark.parametrize("n", SIZES)
def test_after_a_cycle_the_models_are_as_near_to_their_mean_as_was_asked_for(n: int) -> None:
    alone = {node.me.node: node.z for node in drifting(n, 4, Averaging()).nodes.values()}
    rounds = rounds_for(n, 0.01)
    together = {node.me.node: node.z for node in drifting(n, 4, Averaging(4, rounds)).nodes.values()}
    assert spread(together) <= spread(alone) * max(contraction(n) ** (rounds / len(distances(n))), 1e-14)
    assert spread(together) <= 0.01 * spread(alone)
    assert np.abs(np.mean(list(together.values()), 0) - np.mean(list(alone.values()), 0)).max() < 1e-12
    if n & (n - 1) == 0:
        assert uneven(together) < 1e-14


def halved(node: str, step: int, z: Vector, scale: float) -> Vector:
    """A training whose result is a float32 like the model."""
    return z * np.float32(0.5) + np.float32(step)


def test_a_crash_among_averaging_steps_changes_not_one_bit() -> None:
    results = []
    for seed in (None, 1, 2, 3):
        rng = np.random.default_rng(5)
        models: dict[str, Vector] = {f"node-{i}": rng.standard_normal(3).astype(np.float32) for i in range(5)}
        averaging = Averaging(1, 3)
        policy = PushSumPolicy(averaging.steps(4), averaging=averaging)
        swarm = VirtualSwarm(models, Planner(Ring(), Uniform(), 7), policy, halved, has_slow_disks=True)
        swarm.begin()
        if seed is not None:
            while any(node.disk.saved.snapshot is None for node in swarm.up):  # a daemon waits for all before its first
                if swarm.messages:
                    swarm.deliver()
                for node in swarm.up:
                    node.finish_work()
            disturb(swarm, random.Random(seed))
        swarm.settle()
        assert all(node.finished == "completed" for node in swarm.nodes.values())
        assert swarm.audit().live == 5 * ONE
        results.append([node.z.tobytes() for node in swarm.nodes.values()])
    assert all(result == results[0] for result in results)


def disturb(swarm: VirtualSwarm, rng: random.Random) -> None:
    """Messages in any order, some lost, and nodes that crash and come back."""
    for _ in range(150):
        if swarm.messages:
            index = rng.randrange(len(swarm.messages))
            swarm.deliver(index) if rng.random() < 0.9 else swarm.messages.pop(index)
        for node in swarm.up:
            node.finish_work()
        if rng.random() < 0.1:
            node = rng.choice(list(swarm.nodes.values()))
            node.crash()
            node.restart()
        if rng.random() < 0.2:
            for node in swarm.up:
                node.heartbeat()


def test_a_record_from_before_there_were_such_steps_is_read() -> None:
    value = TABLE.to_json(PushSumPolicy(5))
    del value["averaging"]
    assert TABLE.from_json(value) == PushSumPolicy(5)
