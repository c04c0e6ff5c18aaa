"""How many examples of each label a node has, as far as it tells: as it is, or with noise."""

from __future__ import annotations

import math
from random import SystemRandom

import torch
from torch import Tensor

from covey.errors import TaskError
from covey.layout import Layout, TensorSpec
from covey.learning.recipe import RecipeContext

LABELS = "labels"
"""The part's name."""
MOST = 1 << 40
"""No node has more examples of a label."""


def counts_layout(classes: int) -> Layout:
    """Of the part: int64 `[classes]`."""
    return Layout.of([TensorSpec(LABELS, "int64", (classes,))])


def count_labels(context: RecipeContext, classes: int, method: str, *, cut: bool = False) -> Tensor:
    """Of the node's own examples: int64 `[classes]`.

    Args:
        context: The node's.
        classes: How many labels there are.
        method: Its name.
        cut: Leave examples of other labels out: where the counts get noise, an error would tell that there are some.

    Raises:
        TaskError: The task names no labels, or others than these; which, the message does not say: it leaves the node.
    """
    labels = context.labels()
    if labels is None:
        raise TaskError(f'"{method}" counts labels, and this task names none; give it `labels`')
    if cut:
        labels = labels[(labels >= 0) & (labels < classes)]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise TaskError(f'"{method}" counts the labels from 0 to {classes - 1}, and there are others here')
    return torch.bincount(labels, minlength=classes)


def with_noise(counts: Tensor, epsilon: float) -> Tensor:
    """Counts with noise of their own, none below 0: int64 `[classes]`.

    To each count a whole number k is added with probability proportional to exp(-epsilon |k|) (the discrete Laplace
    distribution; Ghosh, Roughgarden and Sundararajan, STOC 2009). One example more or less changes one count by one (L1
    sensitivity 1, unit: examples), so that the counts are epsilon-differentially private for adding or removing one
    example, and 2 epsilon for exchanging its label. The source is the operating system's: whoever knows the run's seed
    must not be able to take the noise away.
    """
    source = SystemRandom()
    noise = [_geometric(source, epsilon) - _geometric(source, epsilon) for _ in range(len(counts))]
    return (counts + torch.tensor(noise, dtype=torch.int64)).clamp(min=0)


def _geometric(source: SystemRandom, epsilon: float) -> int:
    """How often in a row something of probability exp(-epsilon) happens: no logarithm, whose gaps would show."""
    again, count = math.exp(-epsilon), 0
    while source.random() < again:
        count += 1
    return count


def objection_to(counts: Tensor) -> str:
    """Why counts are none; empty: they may be."""
    least, largest = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    if least < 0 or largest > MOST:
        return f"counts of labels from {least} to {largest}; they are 0 to {MOST}"
    return ""
