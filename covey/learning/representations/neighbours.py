"""Losses that compare embeddings with each other: PAWS, SuNCEt, SimCLR. Pure functions of embeddings and labels.

Embeddings are `[n, width]`, of any length: all functions normalise them. Labels are one-hot rows, `[n, classes]`, in
the embeddings' dtype. With `gather` they are one process' share (`covey.learning.representations.gather`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from covey.learning.representations.gather import Alone, Gather

LEAST = 1e-8
"""A probability below this has no logarithm of its own, and no gradient."""
LEAST_TARGET = 1e-4
"""Targets below this are 0, as in the authors' code."""
ALONE = Alone()


class Support(NamedTuple):
    """Labelled embeddings.

    Attributes:
        embeddings: `[n, width]`.
        labels: `[n, classes]`, one-hot.
    """

    embeddings: Tensor
    labels: Tensor


class PawsTerms(NamedTuple):
    """The two terms of PAWS, scalars: what is minimised is their sum.

    Attributes:
        consistency: Cross entropy of each view's prediction from the other view's, sharpened.
        negative_entropy: Of the mean prediction, sharpened: `me-max`.
    """

    consistency: Tensor
    negative_entropy: Tensor


def soft_labels(queries: Tensor, support: Support, temperature: float) -> Tensor:
    """Predictions of the soft nearest neighbours: softmax(cos(z, S) / temperature) Y, `[n, classes]`.

    Assran et al. (ICCV 2021, arXiv 2104.13963), equation 1.
    """
    similarity = functional.normalize(queries) @ functional.normalize(support.embeddings).T
    return (similarity / temperature).softmax(1) @ support.labels


def sharpened(predictions: Tensor, exponent: float) -> Tensor:
    """p^(1/T) / sum p^(1/T) for T = `exponent`, row by row."""
    powers = predictions.clamp(min=LEAST) ** (1 / exponent)
    return powers / powers.sum(1, keepdim=True)


def paws_terms(
    first: Tensor,
    second: Tensor,
    support: Support,
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    bank: Support | None = None,
    gather: Gather = ALONE,
) -> PawsTerms:
    """The loss of PAWS for two views of the same examples.

    Assran, Caron, Misra, Bojanowski, Joulin, Ballas and Rabbat, "Semi-Supervised Learning of Visual Features by
    Non-Parametrically Predicting View Assignments with Support Samples" (ICCV 2021, arXiv 2104.13963), equations 1 to
    3. Predictions go by the support of all processes; targets are the other view's, without gradient.

    Args:
        first: Embeddings of one view.
        second: Of the other one, of the same examples in the same order.
        support: This process' labelled examples.
        temperature: tau.
        sharpening: T.
        bank: Further labelled embeddings, the same on all processes; nothing learns from them by their gradient.
        gather: The processes.
    """
    embeddings = functional.normalize(support.embeddings)
    known = Support(gather.rows(embeddings), gather.rows(support.labels))
    if bank is not None:
        known = Support(torch.cat([known.embeddings, bank.embeddings.detach()]), torch.cat([known.labels, bank.labels]))
    predictions = soft_labels(torch.cat([first, second]), known, temperature)
    with torch.no_grad():
        targets = sharpened(torch.cat([predictions[len(first) :], predictions[: len(first)]]), sharpening)
        targets = torch.where(targets < LEAST_TARGET, 0, targets)
    consistency = -(targets * predictions.clamp(min=LEAST).log()).sum(1).mean()
    mean = gather.mean(sharpened(predictions, sharpening).mean(0))
    return PawsTerms(consistency, (mean * mean.clamp(min=LEAST).log()).sum())


def suncet_loss(support: Support, *, temperature: float = 0.1, gather: Gather = ALONE) -> Tensor:
    """Minus the logarithm of the probability that a soft neighbour has the same label, averaged: a scalar.

    Assran, Ballas, Castrejon and Rabbat, "Supervision Accelerates Pre-training in Contrastive Semi-Supervised Learning
    of Visual Representations" (arXiv 2006.10803), equation 2: neighbourhood component analysis with the cosine. An
    embedding is no neighbour of its own; the neighbours are those of all processes.
    """
    own = functional.normalize(support.embeddings)
    similarity = _without_self(own @ gather.rows(own).T / temperature, gather.rank * len(own))
    predictions = similarity.softmax(1) @ gather.rows(support.labels)
    return -(predictions * support.labels).sum(1).clamp(min=LEAST).log().mean()


def contrastive_loss(first: Tensor, second: Tensor, *, temperature: float = 0.1, gather: Gather = ALONE) -> Tensor:
    """The loss of SimCLR (NT-Xent) for two views of the same examples, averaged over both: a scalar.

    Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations" (ICML
    2020, arXiv 2002.05709), equation 1: which of all other embeddings is that of the other view. Unlike in the code of
    SuNCEt, those of other processes have a gradient, so that it is that of the concatenated batch.
    """
    own = functional.normalize(torch.cat([first, second]))
    at, count = gather.rank * len(own), len(first)
    similarity = _without_self(own @ gather.rows(own).T / temperature, at)
    places = torch.arange(count, device=own.device)
    return functional.cross_entropy(similarity, at + torch.cat([places + count, places]))


def _without_self(similarity: Tensor, at: int) -> Tensor:
    """With nothing in common with itself: row k is that of column `at` + k."""
    rows = torch.arange(len(similarity), device=similarity.device)
    mask = torch.zeros_like(similarity, dtype=torch.bool)
    mask[rows, at + rows] = True
    return similarity.masked_fill(mask, float("-inf"))
