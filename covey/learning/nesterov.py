"""When local Nesterov momentum over a finite set of examples may diverge, though plain SGD does not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from covey.spec import TrainingSection

SEARCH = 40
"""Halvings of an interval in which a bound lies."""


def second_moment_radius(learning_rate: float, momentum: float, curvatures: Mapping[float, float]) -> float:
    """By what factor a step multiplies E[x^2] in the end, each step drawing its curvature anew; above 1 it diverges.

    Nesterov's method on h x^2 / 2 is linear in z_k = (x_k, x_{k-1}):

        z_{k+1} = A(h) z_k,    A(h) = [[(1 + beta)(1 - lr h), -beta (1 - lr h)], [1, 0]]

    so that E[z z^T] is multiplied with the 4 x 4 matrix E[A(h) (x) A(h)], whose spectral radius this is. Assran and
    Rabbat, "On the Convergence of Nesterov's Accelerated Gradient Method in Stochastic Settings" (ICML 2020, arXiv
    2002.12414): with the usual step and momentum it may diverge where the curvature is that of a finite sum's terms.

    Args:
        learning_rate: Of a step.
        momentum: beta, 0 to 1.
        curvatures: Each h that may be drawn, and its probability.
    """
    moments = np.zeros((4, 4))
    for curvature, probability in curvatures.items():
        left = 1 - learning_rate * curvature
        step = np.array([[(1 + momentum) * left, -momentum * left], [1.0, 0.0]])
        moments += probability * np.kron(step, step)
    return float(np.abs(np.linalg.eigvals(moments)).max())


def stable_learning_rate(momentum: float, chance: float) -> float:
    """The largest lr h with which E[x^2] does not grow, if a step sees the curvature h with a chance, and else none.

    Without momentum it is 2, whatever the chance.

    Args:
        momentum: beta, 0 to 1.
        chance: Above 0, at most 1.
    """
    stable, unstable = 0.0, 2.0
    for _ in range(SEARCH):
        between = (stable + unstable) / 2
        grows = second_moment_radius(between, momentum, {1.0: chance, 0.0: 1 - chance}) > 1
        stable, unstable = (stable, between) if grows else (between, unstable)
    return stable


def nesterov_warning(training: TrainingSection, examples: int) -> str:
    """What a run should know that asks for local Nesterov momentum; empty: nothing.

    The rule: some direction is curved by one example only, and a step sees that with the chance batch size / examples,
    independently of the steps before. It warns where such steps would diverge with lr h = 1, h the curvature of the
    batch, with which plain SGD comes to the minimum in one step.

    Args:
        training: The run's.
        examples: How many of them a node draws its batches from.
    """
    if training.optimizer != "momentum" or not training.nesterov or training.batch_size >= examples:
        return ""
    chance = training.batch_size / examples
    if second_moment_radius(1.0, training.momentum, {1.0: chance, 0.0: 1 - chance}) <= 1:
        return ""
    bound = stable_learning_rate(training.momentum, chance)
    return (
        f"training.nesterov: with momentum {training.momentum:g} and batches of {training.batch_size} of "
        f"{examples:,} examples, steps may diverge that plain SGD survives: where one example alone curves the loss, a "
        f"learning rate is safe up to {bound / 2:.2g} of SGD's bound; choose a smaller learning rate or momentum, "
        "larger batches, or nesterov = false"
    )
