"""Weights of samples under which features depend less on each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP = 10
"""The memory is the mean of as many batches, before it is a moving average."""
MOMENTUM = 0.9
"""Of the inner steps."""


def fourier_features(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random Fourier features of each single feature: sqrt(2) cos(w x + phi), w normal, phi uniform in 0..2 pi.

    Zhang et al. (CVPR 2021, arXiv 2104.07876), equation 3.

    Args:
        features: float32 `[n, width]`.
        count: Functions for each feature.
        generator: On the CPU.

    Returns:
        float32 `[count, n, width]`.
    """
    frequency = torch.randn(count, 1, features.shape[1], generator=generator).to(features.device)
    phase = (2 * math.pi * torch.rand(count, 1, features.shape[1], generator=generator)).to(features.device)
    return math.sqrt(2) * torch.cos(frequency * features + phase)


def dependence(functions: Tensor, weights: Tensor) -> Tensor:
    """The squared entries off the diagonal of the features' weighted covariance, summed: a scalar.

    Args:
        functions: `[count, n, width]`; only the same function of two features is compared.
        weights: `[n]`, not negative, with the sum 1.
    """
    mean = torch.einsum("n,cnw->cw", weights, functions)
    centred = functions - mean[:, None]
    covariance = torch.einsum("n,cnv,cnw->cvw", weights, centred, centred)
    return covariance.square().sum() - covariance.diagonal(dim1=1, dim2=2).square().sum()


@dataclass
class SampleWeights:
    """Finds the weights of one batch after the other, and remembers those before.

    Zhang, Cui, Xu, Zhou, He and Shen (CVPR 2021, arXiv 2104.07876), equations 6 to 8: for each batch the raw weights v,
    first all 1, take `steps` steps of gradient descent with momentum 0.9 on

        dependence(all, softmax(v and those remembered)) / penalty + sum softmax(v)^2

    The memory is as long as a batch; row by row it is the mean of the first ten batches' features and raw weights, and
    then moves by 1 - `keep` of the difference in each batch.

    Attributes:
        steps: Of the inner descent.
        learning_rate: Of the same.
        penalty: lambda: how much equal weights count beside independence.
        functions: Fourier features of each feature.
        keep: How much of the memory is kept in each batch.
    """

    steps: int
    learning_rate: float
    penalty: float
    functions: int
    keep: float

    def __post_init__(self) -> None:
        self._features: Tensor | None = None
        self._raw = torch.empty(0)
        self._batches = 0

    def of(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """The weights of a batch: float32 `[n]`, with the sum 1.

        Args:
            features: float32 `[n, width]`, without gradient.
            generator: Where the Fourier features are drawn from, on the CPU.
        """
        raw = torch.ones(len(features), device=features.device)
        known = features if self._features is None else torch.cat([features, self._features])
        functions = fourier_features(known, self.functions, generator)
        velocity = torch.zeros_like(raw)
        for _ in range(self.steps):
            velocity = MOMENTUM * velocity + self._slope(raw, functions)
            raw = raw - self.learning_rate * velocity
        self._remember(features, raw)
        return raw.softmax(0)

    def _slope(self, raw: Tensor, functions: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = raw.detach().requires_grad_()
            both = torch.cat([moved, self._raw.to(moved)])
            loss = dependence(functions, both.softmax(0)) / self.penalty + moved.softmax(0).square().sum()
            (slope,) = torch.autograd.grad(loss, moved)
        return slope

    def _remember(self, features: Tensor, raw: Tensor) -> None:
        if self._features is None:
            self._features, self._raw = features.clone(), raw
        else:
            kept = self._batches / (self._batches + 1) if self._batches < WARM_UP else self.keep
            self._features, self._raw = _blended(self._features, features, kept), _blended(self._raw, raw, kept)
        self._batches += 1


def _blended(memory: Tensor, batch: Tensor, kept: float) -> Tensor:
    """Row by row; rows that only one of them has stay as they are."""
    rows = min(len(memory), len(batch))
    return torch.cat([kept * memory[:rows] + (1 - kept) * batch[:rows], memory[rows:], batch[rows:]])
