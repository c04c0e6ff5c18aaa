"""Momentum across steps, and slow momentum, by the formulas of their papers and beside torch's own optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from covey.gossip.protocols.dynamics import Dynamics
from covey.learning.task import NodeData
from covey.learning.tasks.digits import Digits
from covey.testing.swarms import uneven
from tests.unit.gossip.protocols.dense import DenseNodes, Vector, directed, spec_of

N, D, RATE = 5, 3, 0.05
RNG = np.random.default_rng(7)
OPTIMA, CURVES = RNG.normal(size=(N, D)) * 2, RNG.uniform(0.5, 2.0, size=(N, D))


def gradient(node: int, z: Vector) -> Vector:
    slope: Vector = CURVES[node] * (z - OPTIMA[node])
    return slope


def trained(node: int, z: Vector) -> Vector:
    return -RATE * gradient(node, z)


def nodes_of(n: int = N, **gossip: Any) -> DenseNodes:
    spec = spec_of(**gossip)
    nodes = DenseNodes.at(Dynamics.of(spec.gossip), [np.zeros(D)] * n, RATE)
    nodes.context = replace(nodes.context, spec=spec)
    return nodes


def symmetric(n: int) -> Vector:
    """Both neighbours of a ring and oneself, a third each."""
    eye = np.eye(n)
    return (eye + np.roll(eye, 1, 0) + np.roll(eye, -1, 0)) / 3


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_node_alone_with_local_momentum_is_torchs_sgd(nesterov: bool) -> None:
    nodes = nodes_of(1, momentum="local", momentum_beta=0.8, momentum_nesterov=nesterov)
    z = torch.zeros(D, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([z], RATE, momentum=0.8, nesterov=nesterov)
    for step in range(30):
        nodes.train(step, trained)
        z.grad = torch.from_numpy(gradient(0, z.detach().numpy()))
        optimizer.step()
    assert np.allclose(nodes.models[0], z.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_quasi_global_momentum_is_the_papers(nesterov: bool) -> None:
    beta = 0.9
    nodes = nodes_of(momentum="quasi-global", momentum_beta=beta, momentum_nesterov=nesterov)
    z, m = np.zeros((N, D)), np.zeros((N, D))
    for step in range(25):
        nodes.train(step, trained)
        nodes.mix(step, symmetric(N))
        g = np.stack([gradient(i, z[i]) for i in range(N)])
        u = g + beta * m
        before, z = z, symmetric(N) @ (z - RATE * (g + beta * u if nesterov else u))
        m = beta * m + (1 - beta) * (before - z) / RATE
    assert np.allclose(nodes.models, z, rtol=1e-11, atol=1e-13)
    assert np.allclose([state.vectors["momentum"] for state in nodes.states], m, rtol=1e-10, atol=1e-12)


def test_slow_momentum_moves_the_mean_as_the_papers_formula_does_and_mass_not_at_all() -> None:
    every, beta, slow_rate = 4, 0.6, 0.9
    nodes = nodes_of(outer="slow-momentum", outer_every=every, outer_beta=beta, outer_rate=slow_rate)
    plain = nodes_of()
    z, anchor, u = np.zeros((N, D)), np.zeros((N, D)), np.zeros((N, D))
    for step in range(3 * every):
        nodes.train(step, trained)
        z = z - RATE * np.stack([gradient(i, z[i]) for i in range(N)])
        if (step + 1) % every == 0:
            u = beta * u + (anchor - z) / RATE
            z = anchor = anchor - slow_rate * RATE * u
        nodes.mix(step, symmetric(N))
        plain.mix(step, symmetric(N))
        z = symmetric(N) @ z
    assert np.allclose(nodes.models, z, rtol=1e-11, atol=1e-13)
    assert nodes.weights == plain.weights


def test_a_slow_step_of_rate_one_without_momentum_changes_nothing() -> None:
    slow, plain = nodes_of(outer="slow-momentum", outer_every=3, outer_beta=0.0, outer_rate=1.0), nodes_of()
    for step in range(9):
        for nodes in (slow, plain):
            nodes.train(step, trained)
            nodes.mix(step, directed(N, step))
    assert np.allclose(slow.models, plain.models, rtol=1e-12, atol=1e-14)


def test_unequal_data_on_a_ring_hurt_local_momentum_more_than_quasi_global() -> None:
    best = (CURVES * OPTIMA).sum(0) / CURVES.sum(0)
    far: dict[str, float] = {}
    for momentum in ("local", "quasi-global"):
        nodes = nodes_of(momentum=momentum, momentum_beta=0.9)
        for step in range(600):
            nodes.train(step, trained)
            nodes.mix(step, symmetric(N))
        far[momentum] = float(np.abs(nodes.models - best).max())
    assert far["quasi-global"] < far["local"] / 2


def test_on_digits_by_label_shards_on_a_ring_quasi_global_is_better_than_local_and_that_than_none() -> None:
    task, n, rate = Digits(), 8, 0.5
    images, labels = (tensor.numpy() for tensor in task.train_data(NodeData()).tensors)
    test_images, test_labels = (tensor.numpy() for tensor in task.central_data().tensors)
    shards = np.array_split(np.argsort(labels, kind="stable"), 2 * n)
    parts = [np.concatenate([shards[node], shards[node + n]]) for node in range(n)]

    def softmax_step(node: int, w: Vector) -> Vector:
        scores = images[parts[node]].astype(np.float64) @ w.reshape(64, 10)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        odds[np.arange(len(odds)), labels[parts[node]]] -= 1
        change: Vector = -rate * (images[parts[node]].T @ odds / len(odds)).ravel()
        return change

    accuracy, spread = {}, {}
    for momentum in ("none", "local", "quasi-global"):
        spec = spec_of(momentum=momentum)
        nodes = DenseNodes.at(Dynamics.of(spec.gossip), [np.zeros(640)] * n, rate)
        for step in range(100):
            nodes.train(step, softmax_step)
            nodes.mix(step, symmetric(n))
        guesses = [(test_images @ w.reshape(64, 10)).argmax(1) for w in nodes.models]
        accuracy[momentum] = float(np.mean([guess == test_labels for guess in guesses]))
        spread[momentum] = uneven({str(node): model for node, model in enumerate(nodes.models)})
    assert accuracy["quasi-global"] > accuracy["local"] + 0.04 > accuracy["none"] + 0.04
    assert spread["quasi-global"] < spread["local"] / 2
