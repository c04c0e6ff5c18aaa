"""Statistics with noise: what a node says then, and what becomes of it. (epsilon, delta)-differentially private.

What a node releases is one vector in units of what one example contributes at most. Of each column, with a range
[low, high] that the specification gives, its middle m and half its width R, and x each value cut to the range:

- the examples of each bin, and those without a value: an example is in one of these cells;
- S = sum of (x - m) / R: an example contributes 1 at most, of either sign;
- Q = sum of ((x - m) / R)^2: 1 at most;

and the examples of each label: one of these, where labels are counted. With C columns, and L = 1 where labels are
counted, an example that is left out moves the vector by 3 C + L at most in l1, and by the root of that in l2. Each
element gets Laplace noise of scale (3 C + L) / epsilon, or Gaussian noise of deviation z sqrt(3 C + L) with the least z
for (epsilon, delta) (Dwork and Roth 2014, theorem 3.6; Balle and Wang, ICML 2018, theorem 8). Neighbours are
zero-out neighbours, as everywhere in Covey: the number of examples is not hidden.

Counts are rounded, and nothing is cut to what is possible before all nodes' answers are added up: what is cut would no
longer have the right mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covey.codecs.contract import MessagePrivacy
from covey.codecs.dp_sign import analytic_gaussian
from covey.figures import FiguresForm
from covey.methods.statistics.answers import FIELDS, MOST, Numbers, columns_in, histogram, labels_in
from covey.vectors.secret_noise import laplace, normal

Mechanism = Literal["laplace", "gaussian"]
FARTHEST = 100.0
"""No noise is so many times its scale: the chance is e^-100 at most."""
PER_COLUMN = 3
"""An example's contribution to what is said of a column: to a cell, to S and to Q."""


@dataclass(frozen=True)
class Noise:
    """How much noise there is.

    Attributes:
        form: What is asked.
        epsilon: Of the whole answer.
        delta: 0: Laplace noise; else Gaussian.
    """

    form: FiguresForm
    epsilon: float
    delta: float

    @property
    def mechanism(self) -> Mechanism:
        """Which noise."""
        return "gaussian" if self.delta else "laplace"

    @property
    def sensitivity(self) -> float:
        """By how much one example moves the answer at most: in l1 with Laplace noise, in l2 with Gaussian noise."""
        most = PER_COLUMN * len(self.form.columns) + (self.form.labels > 0)
        return math.sqrt(most) if self.delta else float(most)

    @property
    def multiplier(self) -> float:
        """Scale, or standard deviation, of the noise for each unit of sensitivity."""
        return analytic_gaussian(self.epsilon, self.delta) if self.delta else 1 / self.epsilon

    @property
    def scale(self) -> float:
        """Scale, or standard deviation, of the noise on each element."""
        return self.multiplier * self.sensitivity

    @property
    def privacy(self) -> MessagePrivacy:
        """What one answer spends."""
        return MessagePrivacy(self.epsilon, self.delta, self.mechanism, self.multiplier)

    def drawn(self, key: bytes, count: int) -> Numbers:
        """Noise for so many elements: float64 `[count]`, from the key's stream."""
        return self.scale * (normal if self.delta else laplace)(key, 0, count).numpy()


def noisy_answer(
    columns: Sequence[Numbers], labels: NDArray[np.int64], grid: Numbers, noise: Noise, key: bytes
) -> Numbers:
    """What a node says: float64 `[numel]`, as `covey.methods.statistics.answers` has it.

    Of a column `weight` is the number of examples less `missing`, and `mean` and `m2` are S and Q.

    Args:
        columns: Of each column its values, NaN where there is none, in the order of the form; of one length.
        labels: How many examples of each label, int64 `[labels]`.
        grid: The ranges, float64 `[columns, 2]`.
        noise: How much.
        key: 32 bytes that nobody else knows.
    """
    form, examples = noise.form, len(columns[0])
    size = form.bins + PER_COLUMN  # bins, missing, S, Q
    pairs = zip(columns, grid.tolist(), strict=True)
    exact = [_exact(values, low, high, form.bins) for values, (low, high) in pairs]
    released = np.concatenate([*exact, labels])
    released = released + noise.drawn(key, len(released))
    pieces = [np.array([float(examples)])]
    for at in range(len(columns)):
        column = released[at * size : (at + 1) * size]
        counts, (s, q) = np.rint(column[: form.bins + 1]), column[form.bins + 1 :]
        missing = counts[-1]
        pieces += [np.array([examples - missing, missing, s, q, 0.0, 0.0]), counts[:-1]]
    return np.concatenate([*pieces, np.rint(released[len(columns) * size :])])


def _exact(values: Numbers, low: float, high: float, bins: int) -> Numbers:
    present = values[~np.isnan(values)]
    middle, half = low + (high - low) / 2, (high - low) / 2
    scaled = np.clip((np.clip(present, low, high) - middle) / half, -1.0, 1.0)
    cells = histogram(np.clip(present, low, high), low, high, bins)
    return np.concatenate([cells, [len(values) - len(present), scaled.sum(), np.square(scaled).sum()]])


def noisy_objection(answer: Numbers, noise: Noise, k: int) -> str:
    """Why numbers are no answer; empty: they may be. Finite they are.

    A hostile node's word weighs no more than what its own number of examples, and noise, can come to.
    """
    form, examples = noise.form, float(answer[0])
    if not (k <= examples <= MOST and examples.is_integer()):
        return f"{examples:g} examples; a whole number from {k} to {MOST:g} is said"
    most = examples + FARTHEST * noise.scale + 1
    for name, column in zip(form.columns, columns_in(answer, form), strict=True):
        if column.weight + column.missing != examples:
            return f"column {name!r}: {column.weight:g} values and {column.missing:g} missing, of {examples:g} examples"
        if (column.low, column.high) != (0, 0):
            return f"column {name!r}: a range, which this run asks nobody to say"
        if (
            not _are_counts(np.append(column.cells, column.missing), most)
            or max(abs(column.mean), abs(column.m2)) > most
        ):
            return f"column {name!r}: numbers that {examples:g} examples and this noise cannot come to"
    if not _are_counts(labels_in(answer, form), most):
        return f"labels: numbers that {examples:g} examples and this noise cannot come to"
    return ""


def _are_counts(cells: Numbers, most: float) -> bool:
    return bool((np.rint(cells) == cells).all() and (np.abs(cells) <= most).all())


def noisy_totals(answers: Sequence[Numbers], grid: Numbers, form: FiguresForm) -> Numbers:
    """What all answers come to: float64 `[form.numel]`, in the form of `covey.figures`.

    Only here is cut what cannot be: counts below 0, a mean beyond the range, a variance below 0 or above R^2.

    Args:
        answers: In the roster's order.
        grid: The ranges of the bins.
        form: What was asked.
    """
    examples = sum(float(answer[0]) for answer in answers)
    whole = np.sum(answers, axis=0)
    size = FIELDS + form.bins
    rows = []
    for at, (low, high) in enumerate(grid):
        column = whole[1 + at * size : 1 + (at + 1) * size]
        count = float(np.clip(column[0], 0, examples))
        middle, half = low + (high - low) / 2, (high - low) / 2
        mean = float(np.clip(column[2] / count, -1, 1)) if count else 0.0
        variance = float(np.clip(column[3] / count, mean**2, 1)) - mean**2 if count else 0.0
        head = [len(answers), 0, count, examples - count, 0, middle + half * mean, count * half**2 * variance]
        cells = np.maximum(column[FIELDS:], 0)
        rows.append(np.concatenate([head, [low, high], cells, cells, cells]))
    labels = np.maximum(whole[len(whole) - form.labels :], 0)
    return np.concatenate([[len(answers), examples], *rows, labels, np.zeros(form.labels)])
