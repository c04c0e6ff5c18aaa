from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.momentum_stability import largest_rate, percentile, stable_momentum
from covey.aggregation.server_optimizers import Momentum

CURVATURES = torch.linspace(0.01, 1.0, 40)


def spectral_radius(momentum: float, delay: int, rate: float) -> float:
    """Of the companion matrix of x+ = x + mu (x - x_prev) - c x_{t - tau}, the state (x_t, ..., x_{t - m})."""
    size = max(2, delay + 1)
    matrix = np.eye(size, k=-1)
    matrix[0, 0] += 1 + momentum
    matrix[0, 1] -= momentum
    matrix[0, delay] -= rate
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize(
    ("rate", "limits"),
    [(0.1, {0: 0.99, 1: 0.90, 2: 0.80, 4: 0.66, 8: 0.42}), (0.3, {0: 0.99, 1: 0.69, 2: 0.46, 4: 0.11})],
)
def test_the_limit_is_that_of_the_eigenvalues_on_a_grid(rate: float, limits: dict[int, float]) -> None:
    for delay, limit in limits.items():
        stable = [
            mu
            for mu in np.arange(0, 1, 0.01)
            if all(spectral_radius(mu, delay, rate * c) < 1 for c in CURVATURES.tolist())
        ]
        assert max(stable) == pytest.approx(limit)
        assert stable_momentum(delay, rate) == pytest.approx(limit, abs=0.0101)


def test_no_momentum_is_stable_where_even_none_diverges() -> None:
    for rate, delay in [(0.1, 16), (0.3, 8)]:
        assert spectral_radius(0.0, delay, rate) > 1
        assert stable_momentum(delay, rate) == 0


@given(st.floats(0, 0.98), st.integers(0, 30))
@settings(deadline=None)
def test_the_largest_rate_is_where_the_spectral_radius_reaches_one(momentum: float, delay: int) -> None:
    rate = largest_rate(momentum, delay)
    assert spectral_radius(momentum, delay, rate) == pytest.approx(1, abs=1e-5)
    assert spectral_radius(momentum, delay, 0.99 * rate) < 1 + 1e-9
    assert spectral_radius(momentum, delay, 1.01 * rate) > 1


@given(st.integers(0, 40))
@settings(deadline=None)
def test_without_momentum_the_rate_is_the_known_one_for_delayed_gradients(delay: int) -> None:
    assert largest_rate(0.0, delay) == pytest.approx(2 * math.sin(math.pi / (2 * (2 * delay + 1))))


@given(st.lists(st.integers(0, 50), min_size=1), st.floats(0.01, 1))
@settings(deadline=None)
def test_percentile_is_the_nearest_rank(values: list[int], fraction: float) -> None:
    found = percentile(values, fraction)
    assert sum(v <= found for v in values) >= fraction * len(values) - 1e-9
    assert sum(v < found for v in values) < fraction * len(values)


def delayed(optimizer: Momentum, delay: int, steps: int = 400) -> float:
    """How far from the minimum a quadratic ends, gradients `delay` versions old, through the optimizer itself."""
    models = [torch.ones(len(CURVATURES))]
    state = {"momentum": torch.empty(len(CURVATURES))}
    staleness: list[int] = []
    for step in range(1, steps + 1):
        base = max(0, len(models) - 1 - delay)
        staleness.append(len(models) - 1 - base)
        optimizer.begin(step, staleness)
        models.append(optimizer.step_block(models[-1], -CURVATURES * models[base], state, step))
    return float(models[-1].norm())


def test_too_much_momentum_diverges_with_stale_gradients_and_the_aware_one_converges() -> None:
    plain = {"learning_rate": 0.1, "momentum": 0.9}
    start = math.sqrt(len(CURVATURES))
    assert delayed(Momentum(plain), 0) < 0.05 * start
    assert delayed(Momentum(plain), 4) > 1e6
    aware = Momentum({**plain, "staleness_aware": True})
    assert delayed(aware, 4) < 0.2 * start
    assert aware.momentum == stable_momentum(4, 0.2) < 0.66


def test_without_staleness_the_aware_one_is_the_plain_one() -> None:
    aware = Momentum({"momentum": 0.9, "staleness_aware": True})
    for recent in ((), (0, 0, 0)):
        aware.begin(1, recent)
        assert aware.momentum == 0.9
    aware.begin(2, (0, 0, 9))
    assert aware.momentum < 0.9
    aware.begin(3)
    assert aware.momentum == 0.9
