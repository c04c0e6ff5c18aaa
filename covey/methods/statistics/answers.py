"""What one node says of its data: made, and held against what can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covey.errors import TaskError
from covey.figures import LARGEST, FiguresForm
from covey.methods.statistics.hiding import HIDDEN, tells_too_much, with_hidden

FIELDS = 6
"""Numbers of a column before its cells: weight, missing, mean, m2, low, high."""
MOST = 2.0**40
"""No node has more examples."""
NARROWEST = 1e-100
"""No range of two values is narrower: it could not be cut."""
STEPS = 16
"""The range that is said is rounded outwards, to steps of the largest power of two in a 16th of its width."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ColumnAnswer:
    """What a node says of one column.

    Attributes:
        cells: Examples by bin, -1: hidden, in the second round; the bins are those of the grid.
        weight: With how many examples its mean and variance count: those with a value; all of the node's where
            `missing` is hidden; 0: nothing is said.
        missing: Examples without a value; -1: hidden.
        mean: Of the values; where one is rarer than k, of the cells as they are said (`moments_of`).
        m2: The sum of squared distances from it, likewise.
        low: Nearly the least value, in the first round: k values at least are not above.
        high: Nearly the largest.
    """

    cells: Numbers
    weight: float
    missing: float
    mean: float
    m2: float
    low: float
    high: float


SILENT = (0.0, HIDDEN, 0.0, 0.0, 0.0, 0.0)
"""A column of which nothing is said."""


def numel(form: FiguresForm) -> int:
    """Numbers of an answer: the examples, the columns, the labels."""
    return 1 + len(form.columns) * (FIELDS + form.bins) + form.labels


def ranges_answer(examples: int, columns: Sequence[Numbers], form: FiguresForm, k: int) -> Numbers:
    """What a node says in the first round: only the range of each column, float64 `[numel]`.

    Args:
        examples: How many it has, k at least.
        columns: Of each column its values, NaN where there is none, in the order of the form.
        form: What is asked.
        k: Nothing is said of fewer examples.
    """
    rows = [_ranges_row(values[~np.isnan(values)], k) for values in columns]
    return _flat(examples, rows, [np.full(form.bins, HIDDEN)] * len(rows), np.full(form.labels, HIDDEN))


def figures_answer(
    examples: int, columns: Sequence[Numbers], labels: NDArray[np.int64], grid: Numbers, form: FiguresForm, k: int
) -> Numbers:
    """What a node says in the second round: number, mean, variance and histogram of each column, and of each label.

    Where a value is rarer than k, or so few are missing, mean and variance are those of the histogram (`moments_of`).

    Args:
        examples: How many it has, k at least.
        columns: As of `ranges_answer`.
        labels: How many examples of each label, int64 `[labels]`.
        grid: The bins' ranges, float64 `[columns, 2]`: low and high; equal: nobody said any.
        form: What is asked.
        k: Nothing is said of fewer examples.
    """
    rows, cells = [], []
    for values, (low, high) in zip(columns, grid, strict=True):
        row, counted = _figures_row(values, float(low), float(high), form.bins, k)
        rows.append(row)
        cells.append(counted)
    return _flat(examples, rows, cells, with_hidden(labels, k))


def _flat(
    examples: int, rows: Sequence[Sequence[float]], cells: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]
) -> Numbers:
    pieces = [np.array([examples]), *(np.concatenate([np.array(row), c]) for row, c in zip(rows, cells, strict=True))]
    return np.concatenate([*pieces, labels]).astype(np.float64)


def _ranges_row(present: Numbers, k: int) -> tuple[float, ...]:
    if tells_too_much(present, k):
        return SILENT
    if len(present) < 2 * k:  # the k-th smallest value would be one of the k - 1 largest
        return SILENT
    ordered = np.sort(present)
    low, high = float(ordered[k - 1]), float(ordered[-k])
    if low == high and (present == low).sum() < k:
        return SILENT
    return 1.0, HIDDEN, 0.0, 0.0, *rounded_outwards(low, high)


def rounded_outwards(low: float, high: float) -> tuple[float, float]:
    """A range that is a little wider, and tells no value exactly; one value alone stays, with as much around it.

    Raises:
        TaskError: It is too narrow to be cut.
    """
    if low == high:
        return low, high
    if high - low < NARROWEST:
        raise TaskError(f"a column's values are less than {NARROWEST:g} apart; give them in another unit (Task.table)")
    step = 2.0 ** math.floor(math.log2((high - low) / STEPS))
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _figures_row(
    values: Numbers, low: float, high: float, bins: int, k: int
) -> tuple[tuple[float, ...], NDArray[np.int64]]:
    nothing = np.full(bins, HIDDEN)
    present = values[~np.isnan(values)]
    missing = len(values) - len(present)
    if not len(present):
        return (0.0, missing, 0.0, 0.0, 0.0, 0.0), nothing
    if tells_too_much(present, k):
        return SILENT, nothing
    hides, cells = 0 < missing < k, nothing
    weight = len(values) if hides else len(present)
    if low < high:
        cells = histogram(present, low, high, bins)
        # Hidden, their number is one more cell of the table: it must not follow from the others.
        cells = with_hidden(np.append(cells, missing), k)[:-1] if hides else with_hidden(cells, k)
    if not hides and np.unique(present, return_counts=True)[1].min() >= k:
        mean = float(present.mean())
        m2 = float(np.square(present - mean).sum())
    elif low < high:
        mean, m2 = moments_of(cells, weight, low, high, hides)
    else:
        return SILENT, nothing
    return (weight, HIDDEN if hides else missing, mean, m2, 0.0, 0.0), cells


def moments_of(cells: NDArray[np.int64], weight: int, low: float, high: float, hides: bool) -> tuple[float, float]:
    """Mean and m2 as they follow from cells that are said: each one's examples at its middle.

    They are for values that are rarer than k. Of whole numbers, say, those of the values themselves would be equations
    that only the hidden numbers solve; these tell nothing that the cells do not.

    Args:
        cells: Examples by bin, int64 `[bins]`, -1: hidden; what is hidden counts evenly over them.
        weight: Examples in all.
        low: Where the first bin begins.
        high: Where the last one ends.
        hides: Whether the number of missing values is one more hidden cell.
    """
    hidden = cells == HIDDEN
    share = (weight - cells[~hidden].sum()) / max(1, hidden.sum() + hides)
    middles = low + (np.arange(len(cells)) + 0.5) * ((high - low) / len(cells))
    shares = np.where(hidden, share, cells) / np.where(hidden, share, cells).sum()
    mean = float((shares * middles).sum())
    return mean, float(weight * (shares * np.square(middles - mean)).sum())


def histogram(present: Numbers, low: float, high: float, bins: int) -> NDArray[np.int64]:
    """Examples by bin, int64 `[bins]`: of equal width from low to high, the outermost with all that is beyond."""
    places = np.clip(np.floor((present - low) / (high - low) * bins), 0, bins - 1).astype(np.int64)
    return np.bincount(places, minlength=bins)


def columns_in(answer: Numbers, form: FiguresForm) -> list[ColumnAnswer]:
    """What an answer says of each column."""
    size = FIELDS + form.bins
    rows = answer[1 : 1 + len(form.columns) * size].reshape(len(form.columns), size)
    return [ColumnAnswer(row[FIELDS:], *map(float, row[:FIELDS])) for row in rows]


def labels_in(answer: Numbers, form: FiguresForm) -> Numbers:
    """What it says of each label: float64 `[labels]`, -1: hidden."""
    return answer[len(answer) - form.labels :]


def objection_to(answer: Numbers, form: FiguresForm, k: int) -> str:
    """Why numbers are no answer; empty: they may be. Finite they are.

    Args:
        answer: float64 `[numel]`.
        form: What was asked.
        k: The run's: a number of examples below is never said.
    """
    examples = float(answer[0])
    if not (k <= examples <= MOST and examples.is_integer()):
        return f"{examples:g} examples; a whole number from {k} to {MOST:g} is said"
    if reason := _no_counts(labels_in(answer, form), examples, k):
        return f"labels: {reason}"
    for name, column in zip(form.columns, columns_in(answer, form), strict=True):
        if reason := _no_column(column, examples, k):
            return f"column {name!r}: {reason}"
    return ""


def _no_column(column: ColumnAnswer, examples: float, k: int) -> str:
    if reason := _no_counts(np.array([column.missing]), examples, k) or _no_counts(column.cells, examples, k):
        return reason
    if not (0 <= column.weight <= examples and column.weight.is_integer()):
        return f"a weight of {column.weight:g}, of {examples:g} examples"
    if column.missing != HIDDEN and column.weight + column.missing > examples:
        return f"{column.weight:g} values and {column.missing:g} missing, of {examples:g} examples"
    if (shown := column.cells[column.cells != HIDDEN].sum()) > column.weight:
        return f"{shown:g} examples in its bins, and {column.weight:g} values"
    if max(map(abs, (column.mean, column.low, column.high))) > LARGEST or not 0 <= column.m2 <= MOST * LARGEST**2:
        return f"a mean of {column.mean:g}, squares of {column.m2:g}, or a range that cannot be"
    if column.low > column.high:
        return "a range that ends before it begins"
    return f"a range narrower than {NARROWEST:g}" if 0 < column.high - column.low < NARROWEST else ""


def _no_counts(cells: Numbers, examples: float, k: int) -> str:
    shown = cells[cells != HIDDEN]
    if not (np.equal(np.floor(shown), shown).all() and (shown >= 0).all()):
        return "counts that are no whole numbers from 0 on"
    if ((shown > 0) & (shown < k)).any():
        return f"a count below {k}, which the run asks nobody to say"
    return f"{shown.sum():g} examples, of {examples:g}" if shown.sum() > examples else ""
