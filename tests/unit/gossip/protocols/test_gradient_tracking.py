"""Gradient tracking by its own formulas: Push-DIGing as the paper writes it, and the sums that have to hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from covey.gossip.protocols.gradient_tracking import GRADIENT, TRACKER, GradientTracking
from tests.unit.gossip.protocols.dense import DenseNodes, Vector, directed

N, D, RATE = 6, 4, 0.05
RNG = np.random.default_rng(5)
OPTIMA = RNG.normal(size=(N, D)) * 3
CURVES = RNG.uniform(0.5, 2.0, size=(N, D))
BEST = (CURVES * OPTIMA).sum(0) / CURVES.sum(0)
"""Where the sum of all losses is least."""


def gradient(node: int, z: Vector) -> Vector:
    slope: Vector = CURVES[node] * (z - OPTIMA[node])
    return slope


def trained(node: int, z: Vector) -> Vector:
    return -RATE * gradient(node, z)


def push_diging(steps: int) -> Vector:
    """The recursion of the paper, with (u, v, y) and x = u / v."""
    u, v, x = np.zeros((N, D)), np.ones((N, 1)), np.zeros((N, D))
    before = np.stack([gradient(i, x[i]) for i in range(N)])
    y = before.copy()
    for step in range(steps):
        matrix = directed(N, step)
        u, v, y = matrix @ (u - RATE * y), matrix @ v, matrix @ y
        x = u / v
        now = np.stack([gradient(i, x[i]) for i in range(N)])
        y, before = y + now - before, now
    return x


def at_work(steps: int, first: int = 0, nodes: DenseNodes | None = None) -> DenseNodes:
    nodes = nodes or DenseNodes.at(GradientTracking(), [np.zeros(D)] * N, RATE)
    for step in range(first, first + steps):
        nodes.train(step, trained)
        assert np.allclose(nodes.sum_of(TRACKER), summed_gradients(nodes), rtol=1e-12, atol=1e-12)
        nodes.mix(step, directed(len(nodes.states), step))
        assert np.allclose(nodes.sum_of(TRACKER), summed_gradients(nodes), rtol=1e-12, atol=1e-12)
    return nodes


def summed_gradients(nodes: DenseNodes) -> Vector:
    total: Vector = np.sum([state.vectors[GRADIENT] for state in nodes.states], axis=0)
    return total


def test_it_is_push_diging_on_irregular_directed_graphs() -> None:
    assert np.allclose(at_work(40).models, push_diging(40), rtol=1e-10, atol=1e-12)


def test_with_unequal_data_it_comes_to_the_optimum_itself() -> None:
    nodes = at_work(800)
    assert np.abs(nodes.models - BEST).max() < 1e-8


def test_a_leaver_hands_over_its_tracker_without_its_gradient() -> None:
    nodes = at_work(5)
    now = replace(nodes.context, weight=nodes.weights[2], leaves=True, is_trained=False)
    leaver, update = nodes.states[2], nodes.protocol.train(nodes.states[2], np.zeros(D), 1.0, now)
    handed = update.vectors[TRACKER]
    # What it is given since, it hands over as it came.
    given = replace(leaver, vectors={**update.vectors, TRACKER: leaver.vectors[TRACKER]})
    again = nodes.protocol.train(given, np.zeros(D), 1.0, now).vectors[TRACKER]
    assert np.allclose(again, leaver.vectors[TRACKER], rtol=1e-12)
    # Its heir mixes it in, by mass.
    heir, whole = nodes.states[0], nodes.weights[0] + nodes.weights[2]
    share = nodes.weights[2] / whole
    merged = heir.vectors[TRACKER] * (1 - share) + handed * share
    nodes.states[0] = replace(heir, vectors={**heir.vectors, TRACKER: merged})
    nodes.weights[0] = whole
    del nodes.states[2], nodes.weights[2]
    assert np.allclose(nodes.sum_of(TRACKER), summed_gradients(nodes), rtol=1e-12, atol=1e-12)


def test_after_an_eviction_the_sums_agree_again_whoever_hears_of_it_first() -> None:
    nodes = at_work(5)
    del nodes.states[4], nodes.weights[4]  # its tracker and its gradient are gone
    assert not np.allclose(nodes.sum_of(TRACKER), summed_gradients(nodes), atol=1e-3)
    knows = {0}
    for step in range(6, 14):
        for node in range(N - 1):
            state = nodes.states[node]
            now = replace(nodes.context, step=step, weight=nodes.weights[node], evictions=int(node in knows))
            update = nodes.protocol.train(state, trained(node, state.model), 1.0, now)
            nodes.states[node] = replace(
                state, model=state.model + update.change, vectors=dict(update.vectors), stamp=update.stamp
            )
        nodes.mix(step, directed(N - 1, step))
        knows |= {step % (N - 1)}
    assert {state.stamp for state in nodes.states} == {1}
    assert np.allclose(nodes.sum_of(TRACKER), summed_gradients(nodes), rtol=1e-10, atol=1e-10)
