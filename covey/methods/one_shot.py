"""What a coordinator makes of one upload of each node: the averaged predictor, trained on generated features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from covey.layout import Layout, TensorSpec
from covey.learning.optimizers import Adam
from covey.methods.latents import Generator, draw_labels
from covey.methods.predictor import Predictor

RETRAINED = "retrained"
"""The part's name."""
LEARNING_RATE = 1e-3


def head_layout(predictor: Predictor) -> Layout:
    """Of a predictor's parameters, float32, under their names in the model."""
    places = predictor.places
    return Layout(tuple(TensorSpec(predictor.names[name], "float32", shape) for name, (_, shape) in places.items()))


def retrained(
    predictor: Predictor,
    start: Mapping[str, Tensor],
    generator: Generator,
    labels: Tensor,
    steps: int,
    batch_size: int,
    source: torch.Generator,
) -> dict[str, Tensor]:
    """A predictor trained from `start` to know the labels of generated features (Adam, learning rate 0.001).

    It stays as it was where the generator was never trained, and where it would end with values that are not finite.

    Args:
        predictor: What is known of it.
        start: Its parameters; stay as they are.
        generator: Makes the features, in evaluation mode.
        labels: Shares by which labels are drawn, `[classes]`; zeros: the generator was never trained.
        steps: Of Adam.
        batch_size: Features a step.
        source: Of labels and noise.
    """
    first = {name: value.detach().to("cpu", torch.float32).clone() for name, value in start.items()}
    if not labels.sum() > 0:
        return first
    values = {name: value.clone().requires_grad_() for name, value in first.items()}
    optimizer = Adam({})
    optimizer.begin(values.values(), LEARNING_RATE, 0.0)
    generator.eval()
    for _ in range(steps):
        drawn = draw_labels(labels, batch_size, source)
        with torch.no_grad():
            z, _ = generator.sample(drawn, source)
        functional.cross_entropy(predictor.logits(values, z), drawn).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if not all(torch.isfinite(value).all() for value in values.values()):
        return first
    return {name: value.detach() for name, value in values.items()}
