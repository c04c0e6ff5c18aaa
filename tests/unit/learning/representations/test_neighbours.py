"""The losses among embeddings, held against plain sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from covey.learning.representations.neighbours import (
    Support,
    contrastive_loss,
    paws_terms,
    sharpened,
    soft_labels,
    suncet_loss,
)

TAU, SHARP = 0.1, 0.25


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(*labels: int) -> Tensor:
    return functional.one_hot(torch.tensor(labels), 3).double()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def by_hand(z: Tensor, support: Support) -> list[float]:
    weights = [math.exp(cosine(z, s) / TAU) for s in support.embeddings]
    classes = support.labels.argmax(1).tolist()
    return [sum(w for w, y in zip(weights, classes, strict=True) if y == c) / sum(weights) for c in range(3)]


def sharp(p: list[float]) -> list[float]:
    powers = [q ** (1 / SHARP) for q in p]
    return [q / sum(powers) for q in powers]


def test_paws_is_the_cross_entropy_from_the_other_view_and_the_entropy_of_the_mean() -> None:
    first, second = drawn(4, 5), drawn(4, 5, seed=2)
    support = Support(drawn(6, 5, seed=3), one_hot(0, 1, 2, 0, 1, 2))
    views = [*first, *second]
    predictions = [by_hand(z, support) for z in views]
    others = predictions[4:] + predictions[:4]
    total, mean = 0.0, [0.0, 0.0, 0.0]
    for own, other in zip(predictions, others, strict=True):
        total -= sum((t if t >= 1e-4 else 0) * math.log(p) for t, p in zip(sharp(other), own, strict=True)) / 8
        mean = [m + p / 8 for m, p in zip(mean, sharp(own), strict=True)]
    terms = paws_terms(first, second, support, temperature=TAU, sharpening=SHARP)
    assert torch.allclose(soft_labels(first, support, TAU)[0], torch.tensor(predictions[0], dtype=torch.float64))
    assert terms.consistency.item() == pytest.approx(total, rel=1e-6)
    assert terms.negative_entropy.item() == pytest.approx(sum(m * math.log(m) for m in mean), rel=1e-6)


def test_targets_have_no_gradient() -> None:
    """With the second view's embeddings as they are, what they have of a gradient is of their own predictions."""
    first, second = drawn(1, 5).requires_grad_(), drawn(1, 5, seed=2).requires_grad_()
    support = Support(drawn(6, 5, seed=3), one_hot(0, 1, 2, 0, 1, 2))
    (slope,) = torch.autograd.grad(paws_terms(first, second, support).consistency, second)
    target = sharpened(soft_labels(first, support, TAU), SHARP).detach()
    target = torch.where(target < 1e-4, 0, target)
    own = -(target * soft_labels(second, support, TAU).log()).sum() / 2
    assert torch.allclose(slope, torch.autograd.grad(own, second)[0])


def test_a_bank_is_more_support_without_a_gradient() -> None:
    first, second = drawn(4, 5), drawn(4, 5, seed=2)
    whole = Support(drawn(6, 5, seed=3), one_hot(0, 1, 2, 0, 1, 2))
    own = Support(whole.embeddings[:3], whole.labels[:3])
    bank = Support(whole.embeddings[3:].clone().requires_grad_(), whole.labels[3:])
    terms = paws_terms(first.requires_grad_(), second, own, bank=bank)
    assert torch.allclose(terms.consistency, paws_terms(first, second, whole).consistency)
    (slope,) = torch.autograd.grad(terms.consistency, bank.embeddings, allow_unused=True)
    assert slope is None


def test_embeddings_of_any_length_are_borne() -> None:
    """What another node shows may be as large as a float32 is, or very small."""
    queries = drawn(4, 5).float()
    own = Support(drawn(3, 5, seed=3).float(), one_hot(0, 1, 2).float())
    wild = Support(torch.tensor([[3e38] * 5, [1e-40] * 5, [-3e38] * 5]), one_hot(0, 1, 2).float())
    terms = paws_terms(queries, queries, own, bank=wild)
    assert torch.isfinite(terms.consistency)
    assert torch.isfinite(terms.negative_entropy)


def test_suncet_is_the_probability_of_a_neighbour_with_the_same_label() -> None:
    classes = [0, 1, 2, 0, 1, 2, 0]
    support = Support(drawn(7, 5), one_hot(*classes))
    total = 0.0
    for i, z in enumerate(support.embeddings):
        others = [j for j in range(7) if j != i]
        weights = {j: math.exp(cosine(z, support.embeddings[j]) / TAU) for j in others}
        total -= math.log(sum(weights[j] for j in others if classes[j] == classes[i]) / sum(weights.values())) / 7
    assert suncet_loss(support, temperature=TAU).item() == pytest.approx(total, rel=1e-9)


def test_a_label_that_only_one_has_does_no_harm() -> None:
    embeddings = drawn(3, 5).requires_grad_()
    loss = suncet_loss(Support(embeddings, one_hot(0, 0, 1)))
    (slope,) = torch.autograd.grad(loss, embeddings)
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()


def test_simclr_finds_the_other_view() -> None:
    first, second = drawn(3, 5), drawn(3, 5, seed=2)
    views, total = [*first, *second], 0.0
    for i, z in enumerate(views):
        weights = {j: math.exp(cosine(z, views[j]) / TAU) for j in range(6) if j != i}
        total -= math.log(weights[(i + 3) % 6] / sum(weights.values())) / 6
    assert contrastive_loss(first, second, temperature=TAU).item() == pytest.approx(total, rel=1e-9)
    assert contrastive_loss(first, first, temperature=TAU) < contrastive_loss(first, second, temperature=TAU)
