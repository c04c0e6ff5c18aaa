"""A small generator of latent features by label, its losses, and how it is trained from nodes' predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from covey.learning.optimizers import LocalOptimizer
from covey.methods.predictor import Predictor

Teacher = Literal["avg_logits", "weighted_nll"]


class Generator(nn.Module):
    """z = G(y, noise): noise uniform in [0, 1) and the label as one-hot, through one hidden layer with BatchNorm.

    Args:
        classes: Labels.
        noise: Numbers of noise.
        hidden: Units of the hidden layer.
        width: Of z.
    """

    def __init__(self, classes: int, noise: int, hidden: int, width: int) -> None:
        super().__init__()
        self.classes, self.noise = classes, noise
        self.hidden, self.norm = nn.Linear(noise + classes, hidden), nn.BatchNorm1d(hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Float32 `[n, noise]` and int64 `[n]` to z, `[n, width]`."""
        one_hot = functional.one_hot(labels, self.classes).to(noise.dtype)
        z: Tensor = self.output(functional.relu(self.norm(self.hidden(torch.cat([noise, one_hot], 1)))))
        return z

    def sample(self, labels: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Z of these labels, and the noise that it is made of, drawn from `source` on the CPU."""
        noise = torch.rand(len(labels), self.noise, generator=source).to(labels.device)
        return self(noise, labels), noise


def draw_labels(shares: Tensor, count: int, source: torch.Generator) -> Tensor:
    """`count` labels, int64, drawn with `shares` `[classes]` as probabilities (not all zero, need not add up to 1)."""
    return torch.multinomial(shares, count, replacement=True, generator=source)


def diversity_loss(noise: Tensor, z: Tensor) -> Tensor:
    """exp(- mean over all pairs of (mean squared distance of the noise) x (mean absolute distance of z)); in (0, 1].

    As in the authors' code, over all pairs of the batch whatever their labels, pairs of one and itself included. The
    distance in z is unbounded, so what counts is the spread within a label, which is to be looked at by itself.
    """
    of_noise = (noise[:, None] - noise[None]).square().mean(2)
    of_z = (z[:, None] - z[None]).abs().mean(2)
    return torch.exp(-(of_noise * of_z).mean())


def teacher_loss(kind: Teacher, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """How badly the nodes' predictors, together, know the labels of generated features.

    Args:
        kind: `avg_logits`: the cross entropy of the logits' weighted mean (equation 4 of the paper, there with equal
            weights). `weighted_nll`: the weighted mean of each predictor's negative log likelihood (the authors' code).
        logits: `[nodes, n, classes]`.
        labels: int64 `[n]`.
        weights: Of each node for each example, `[nodes, n]`; those of one example add up to 1.
    """
    if kind == "avg_logits":
        return functional.cross_entropy((weights[:, :, None] * logits).sum(0), labels)
    nodes, n, classes = logits.shape
    nll = functional.cross_entropy(logits.reshape(nodes * n, classes), labels.repeat(nodes), reduction="none")
    return (weights * nll.view(nodes, n)).sum(0).mean()


@dataclass(frozen=True)
class Teachers:
    """The nodes' predictors as teachers.

    Attributes:
        predictor: What they have in common.
        values: Their parameters.
        counts: How many examples of each label each node has, in any unit: float32 `[nodes, classes]`; a node
            without any is never asked.
    """

    predictor: Predictor
    values: Sequence[Mapping[str, Tensor]]
    counts: Tensor

    @property
    def shares(self) -> Tensor:
        """Of each label among all examples: float32 `[classes]`."""
        return self.counts.sum(0) / self.counts.sum()

    def weights(self, labels: Tensor) -> Tensor:
        """Of each node for each of these labels, which somebody has: `[nodes, n]`; those of a label add up to 1."""
        of_label = self.counts / self.counts.sum(0).clamp(min=torch.finfo(torch.float32).tiny)
        return of_label[:, labels]

    def logits(self, z: Tensor) -> Tensor:
        """`[nodes, n, classes]`."""
        return torch.stack([self.predictor.logits(values, z) for values in self.values])


@dataclass(frozen=True)
class Lesson:
    """One training of the generator.

    Attributes:
        steps: Of Adam.
        batch_size: Features a step.
        learning_rate: Of this round.
        weight_decay: L2, added to the gradient (Adam's own, not AdamW's).
        teacher: Which loss.
        diversity: Weight of the diversity loss.
        labels: Which labels are drawn: `shares` `[classes]`.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    teacher: Teacher
    diversity: float
    labels: Tensor


def train(
    generator: Generator, optimizer: LocalOptimizer, teachers: Teachers, lesson: Lesson, source: torch.Generator
) -> tuple[float, float]:
    """Train a generator in place; the mean teacher loss and diversity loss of the steps."""
    generator.train()
    totals = torch.zeros(2)
    optimizer.learning_rate, optimizer.weight_decay = lesson.learning_rate, lesson.weight_decay
    for _ in range(lesson.steps):
        labels = draw_labels(lesson.labels, lesson.batch_size, source)
        z, noise = generator.sample(labels, source)
        teacher = teacher_loss(lesson.teacher, teachers.logits(z), labels, teachers.weights(labels))
        diversity = diversity_loss(noise, z)
        (teacher + lesson.diversity * diversity).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        totals += torch.stack([teacher.detach(), diversity.detach()])
    mean_teacher, mean_diversity = (totals / max(1, lesson.steps)).tolist()
    return mean_teacher, mean_diversity


@torch.no_grad()
def spread(generator: Generator, classes: int, source: torch.Generator, count: int = 64) -> float:
    """How far features of one label are apart: the mean over labels of the mean standard deviation of z's elements."""
    generator.eval()
    labels = torch.arange(classes).repeat_interleave(count)
    z, _ = generator.sample(labels, source)
    return float(z.view(classes, count, -1).std(1).mean())
