"""What becomes of the nodes' answers: the bins' ranges after the first round, the totals after the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from covey.figures import FiguresForm
from covey.methods.statistics.answers import ColumnAnswer, Numbers, columns_in, labels_in
from covey.methods.statistics.hiding import HIDDEN

WIDENED = 1e-6
"""By so much of it, and half a unit at least, the range of a column with one value is wider to both sides."""


def grid_of(answers: Sequence[Numbers], form: FiguresForm, given: Mapping[str, tuple[float, float]]) -> Numbers:
    """The ranges of the bins: float64 `[columns, 2]`, low and high; equal where nobody said any.

    Args:
        answers: Of the first round.
        form: What was asked.
        given: Ranges, by column, that the run's specification gives; these are taken as they are.
    """
    grid = np.zeros((len(form.columns), 2))
    told = [columns_in(answer, form) for answer in answers]
    for at, name in enumerate(form.columns):
        rows = [node[at] for node in told if node[at].weight]
        if name in given:
            grid[at] = given[name]
        elif rows:
            grid[at] = widened(min(row.low for row in rows), max(row.high for row in rows))
    return grid


def widened(low: float, high: float) -> tuple[float, float]:
    """A range of bins: as it is, or where it is one value, with something around it."""
    around = max(0.5, abs(low) * WIDENED) if low == high else 0.0
    return low - around, high + around


def totals_of(answers: Sequence[Numbers], grid: Numbers, form: FiguresForm) -> Numbers:
    """What all answers come to: float64 `[form.numel]`, in the form of `covey.figures`.

    Args:
        answers: Of one round, in the roster's order.
        grid: The ranges of the bins.
        form: What was asked.
    """
    told = [columns_in(answer, form) for answer in answers]
    examples = [float(answer[0]) for answer in answers]
    rows = [_row([node[at] for node in told], examples, grid[at], form.bins) for at in range(len(form.columns))]
    labels = np.array([labels_in(answer, form) for answer in answers]).reshape(len(answers), form.labels)
    counts = np.where(labels == HIDDEN, 0.0, labels).sum(0)
    return np.concatenate([[len(answers), sum(examples)], *rows, counts, (labels == HIDDEN).sum(0)])


def _row(told: Sequence[ColumnAnswer], examples: Sequence[float], edges: Numbers, bins: int) -> Numbers:
    spoken = [row for row in told if row.weight]
    weights = np.array([row.weight for row in spoken])
    count = float(weights.sum())
    # The variance of all: what is within nodes, and what their means differ by.
    means = np.array([row.mean for row in spoken])
    mean = float((weights * means).sum() / count) if count else 0.0
    m2 = float(sum(row.m2 for row in spoken) + (weights * np.square(means - mean)).sum())
    missing = sum(row.missing for row in told if row.missing != HIDDEN)
    hides = sum(row.missing == HIDDEN for row in spoken)
    cells = np.zeros((3, bins))
    if edges[0] < edges[1]:
        cells += sum(_spread(row, of_node) for row, of_node in zip(told, examples, strict=True))
    silent = sum(row.weight == 0 and row.missing == HIDDEN for row in told)
    head = [len(spoken), silent, count, missing, hides, mean, m2]
    return np.concatenate([head, edges, cells.reshape(-1)])


def _spread(row: ColumnAnswer, examples: float) -> Numbers:
    """A node's examples by bin, float64 `[3, bins]`: what it hides in the lowest hidden cell, in all, the highest."""
    hidden = np.flatnonzero(row.cells == HIDDEN)
    visible = np.where(row.cells == HIDDEN, 0.0, row.cells)
    if not row.weight or not len(hidden):
        return np.tile(visible, (3, 1))
    hides_missing = row.missing == HIDDEN
    left = max(0.0, examples - visible.sum() - (0.0 if hides_missing else row.missing))
    spread = np.tile(visible, (3, 1))
    spread[0, hidden[0]] += left
    spread[1, hidden] += left / (len(hidden) + hides_missing)
    spread[2, hidden[-1]] += 0.0 if hides_missing else left
    return spread
