"""Weights of samples make features less dependent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covey.learning.representations.decorrelation import SampleWeights, dependence, fourier_features


def correlated(count: int, seed: int) -> Tensor:
    """Four features; in nine of ten rows the second one is as the first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator)
    alike = torch.rand(count, generator=generator) < 0.9
    x[alike, 1] = x[alike, 0]
    return x


def test_dependence_is_that_of_a_plain_sum() -> None:
    generator = torch.Generator().manual_seed(1)
    functions = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(7, generator=generator, dtype=torch.float64).softmax(0)
    total = 0.0
    for count in range(2):
        for a in range(3):
            for b in range(3):
                if a != b:
                    x, y = functions[count, :, a], functions[count, :, b]
                    covariance = (weights * x * y).sum() - (weights * x).sum() * (weights * y).sum()
                    total += covariance.item() ** 2
    assert dependence(functions, weights).item() == pytest.approx(total, rel=1e-9)


def test_fourier_features_are_cosines_of_each_feature_alone() -> None:
    x = torch.randn(5, 3)
    whole = fourier_features(x, 2, torch.Generator().manual_seed(1))
    assert whole.shape == (2, 5, 3)
    assert whole.abs().max() <= 2**0.5 + 1e-6
    x[:, 0] = 0
    changed = fourier_features(x, 2, torch.Generator().manual_seed(1))
    assert torch.equal(changed[..., 1:], whole[..., 1:])
    assert torch.equal(changed[:, 0, 0], changed[:, 4, 0])


def test_the_weighted_covariance_falls_and_weights_stay_weights() -> None:
    weights = SampleWeights(steps=20, learning_rate=10.0, penalty=1.0, functions=5, keep=0.9)
    equal = torch.full((64,), 1 / 64)
    falls = []
    for batch in range(12):
        features = correlated(64, batch)
        found = weights.of(features, torch.Generator().manual_seed(batch))
        assert found.sum().item() == pytest.approx(1, abs=1e-5)
        assert found.min() > 0
        functions = fourier_features(features, 5, torch.Generator().manual_seed(batch + 100))
        falls.append((dependence(functions, found) / dependence(functions, equal)).item())
    # Measured on functions that the weights were not found with.
    assert sum(falls) / len(falls) < 0.6


def test_a_large_penalty_keeps_weights_equal() -> None:
    weights = SampleWeights(steps=20, learning_rate=1.0, penalty=1e9, functions=1, keep=0.9)
    found = weights.of(correlated(16, 1), torch.Generator().manual_seed(1))
    assert torch.allclose(found, torch.full((16,), 1 / 16), atol=1e-6)


def test_the_memory_is_a_mean_then_a_moving_average_and_takes_shorter_batches() -> None:
    weights = SampleWeights(steps=0, learning_rate=1.0, penalty=1.0, functions=1, keep=0.9)
    batches = [torch.full((4 if k != 5 else 2, 1), float(k)) for k in range(12)]
    for batch in batches:
        weights.of(batch, torch.Generator().manual_seed(1))
    whole, short = 0.0, 0.0
    for k in range(12):
        kept = k / (k + 1) if k < 10 else 0.9
        whole = kept * whole + (1 - kept) * k
        short = short if k == 5 else kept * short + (1 - kept) * k
    assert weights._features is not None
    assert weights._features[:2].flatten().tolist() == pytest.approx([whole, whole], rel=1e-5)
    assert weights._features[2:].flatten().tolist() == pytest.approx([short, short], rel=1e-5)
