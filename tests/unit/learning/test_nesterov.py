from __future__ import annotations

import numpy as np
import pytest

from covey.learning.nesterov import nesterov_warning, second_moment_radius, stable_learning_rate
from covey.spec.training import TrainingSection

RARE = {1.0: 0.1, 0.0: 0.9}


def training(**fields: object) -> TrainingSection:
    return TrainingSection.model_validate({"optimizer": "momentum", "nesterov": True, "batch_size": 10, **fields})


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_momentum_diverges_on_a_finite_sum_where_plain_sgd_converges(scale: float) -> None:
    curvatures = {scale * h: probability for h, probability in RARE.items()}
    assert second_moment_radius(1 / scale, 0.0, curvatures) == pytest.approx(0.9)
    assert second_moment_radius(1 / scale, 0.9, curvatures) == pytest.approx(1.358, abs=1e-3)


def test_the_radius_is_how_fast_the_mean_square_of_real_steps_grows() -> None:
    rng = np.random.default_rng(1)
    now, before = np.ones(400_000), np.ones(400_000)
    squares = []
    for _ in range(12):
        ahead = now + 0.5 * (now - before)
        now, before = ahead - 0.7 * (rng.random(now.shape) < 0.3) * ahead, now
        squares.append(float(np.mean(now**2)))
    radius = second_moment_radius(0.7, 0.5, {1.0: 0.3, 0.0: 0.7})
    assert (squares[-1] / squares[-5]) ** 0.25 == pytest.approx(radius, rel=0.03)


def test_a_smaller_learning_rate_is_stable_again() -> None:
    assert stable_learning_rate(0.0, 0.1) == pytest.approx(2.0)
    bound = stable_learning_rate(0.9, 0.1)
    assert second_moment_radius(bound * 0.99, 0.9, RARE) < 1 < second_moment_radius(bound * 1.01, 0.9, RARE)
    assert 0.1 < bound < 0.5


def test_who_asks_for_it_is_warned() -> None:
    text = nesterov_warning(training(), 100)
    assert "momentum 0.9 and batches of 10 of 100 examples" in text
    assert "nesterov = false" in text


@pytest.mark.parametrize(
    "fields", [{"nesterov": False}, {"optimizer": "sgd"}, {"batch_size": 100}, {"momentum": 0.0}, {"momentum": 0.5}]
)
def test_who_does_not_is_not(fields: dict[str, object]) -> None:
    assert nesterov_warning(training(**fields), 100) == ""
