"""What a run of method `statistics` comes to: the form of its totals, and the figures that people read in them.

The totals are one vector of float64, a file of the version that the run made. Nothing here needs torch or numpy.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from covey.errors import LayoutError

METHOD = "statistics"
"""The method's name."""
TOTALS = "totals"
"""The part with the totals."""
DEFAULT_BINS = 20
LARGEST = 1e100
"""Values beyond are refused: their squares would not be finite."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Those that are shown where nobody asks for others."""
HEAD, ROW = 2, 9
"""Numbers before the columns; numbers of a column before its cells."""


@dataclass(frozen=True)
class FiguresForm:
    """What a run asks of the data.

    Attributes:
        columns: Their names.
        bins: Of each column's histogram.
        labels: How many labels are counted; 0: they are not.
    """

    columns: tuple[str, ...]
    bins: int = DEFAULT_BINS
    labels: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FiguresForm:
        """From `[method.options]` of a specification that was checked."""
        return cls(tuple(options["columns"]), int(options.get("bins", DEFAULT_BINS)), int(options.get("labels", 0)))

    @property
    def row(self) -> int:
        """Numbers of a column."""
        return ROW + 3 * self.bins

    @property
    def numel(self) -> int:
        """Numbers in all."""
        return HEAD + len(self.columns) * self.row + 2 * self.labels


@dataclass(frozen=True)
class Quantile:
    """A quantile that was read off a histogram.

    Attributes:
        q: Which one, 0 to 1.
        value: The estimate: linear within a bin, what is hidden spread evenly over the cells that are.
        least: It is no less than this, wherever what is hidden lies; None: in the open lowest bin.
        most: It is no more than this; None: in the open highest bin.
    """

    q: float
    value: float
    least: float | None
    most: float | None


@dataclass(frozen=True)
class ColumnFigures:
    """One column over all nodes that said something of it.

    Attributes:
        column: Its name.
        nodes: How many said it.
        silent: How many answered, and said nothing of it: too few of their examples would have been behind it.
        count: Examples with a value. Where `hides_missing` is not 0 it may be too large, by less than the smallest
            cell of each of these nodes.
        missing: Examples without a value, of the nodes that said how many.
        hides_missing: How many nodes have some without a value, and too few to say.
        mean: NaN where nobody said anything. Of nodes where a value is rarer than k, as exact as a bin is wide.
        variance: The mean squared distance from the mean, likewise.
        edges: Of the bins, `bins + 1`; the outermost bins are open: they hold what is beyond, too. Empty: no range is
            known.
        lowest: Examples by bin, all that is hidden in the lowest hidden cell of its node.
        cells: Examples by bin, what is hidden spread evenly over the hidden cells of its node.
        highest: As `lowest`, in the highest; without what may be missing values.
    """

    column: str
    nodes: int
    silent: int
    count: float
    missing: float
    hides_missing: int
    mean: float
    variance: float
    edges: tuple[float, ...]
    lowest: tuple[float, ...]
    cells: tuple[float, ...]
    highest: tuple[float, ...]

    @property
    def hidden(self) -> float:
        """Examples that are in hidden cells, at most."""
        return sum(self.lowest) - sum(min(pair) for pair in zip(self.lowest, self.highest, strict=True))

    def quantile(self, q: float) -> Quantile | None:
        """The smallest value that so many of the examples are not above; None: nothing is known."""
        if not self.edges or not sum(self.cells) > 0 or not sum(self.highest) > 0:
            return None
        at, whole = _reached(self.cells, q, sum(self.cells)), sum(self.cells)
        if at is None:
            return None
        before, low, high = sum(self.cells[:at]), self.edges[at], self.edges[at + 1]
        inside = (q * whole - before) / self.cells[at] if self.cells[at] else 0.0
        first, last = _reached(self.lowest, q, sum(self.highest)), _reached(self.highest, q, sum(self.lowest))
        return Quantile(
            q,
            low + min(max(inside, 0.0), 1.0) * (high - low),
            self.edges[first] if first else None,
            self.edges[last + 1] if last is not None and last + 1 < len(self.cells) else None,
        )


def _reached(cells: Sequence[float], q: float, whole: float) -> int | None:
    """The first cell with which so large a share of the whole is reached; None: none is."""
    enough = q * whole * (1 - 1e-12)
    return next((at for at, total in enumerate(accumulate(cells)) if total >= enough and total > 0), None)


@dataclass(frozen=True)
class Figures:
    """All that a statistics run came to.

    Attributes:
        nodes: How many answered.
        examples: How many they have.
        columns: What they say of each column.
        labels: Examples by label, as far as they are said.
        hidden_labels: By label, how many nodes hid it: they have some of it, and too few, or another label's number
            would follow from it.
    """

    nodes: int
    examples: int
    columns: tuple[ColumnFigures, ...]
    labels: tuple[int, ...]
    hidden_labels: tuple[int, ...]

    @classmethod
    def from_bytes(cls, content: bytes, form: FiguresForm) -> Figures:
        """From the totals' file.

        Raises:
            LayoutError: It has another size.
        """
        if len(content) != 8 * form.numel:
            raise LayoutError(f"the totals have {len(content)} bytes, and {8 * form.numel} are declared")
        numbers = array("d", content)
        if sys.byteorder == "big":
            numbers.byteswap()
        return cls.of(numbers, form)

    @classmethod
    def of(cls, totals: Sequence[float], form: FiguresForm) -> Figures:
        """From the numbers of the totals."""
        end = HEAD + len(form.columns) * form.row
        rows = (totals[HEAD + at * form.row : HEAD + (at + 1) * form.row] for at in range(len(form.columns)))
        columns = tuple(_column(name, row, form.bins) for name, row in zip(form.columns, rows, strict=True))
        counts, hidden = totals[end : end + form.labels], totals[end + form.labels : end + 2 * form.labels]
        return cls(int(totals[0]), int(totals[1]), columns, tuple(map(int, counts)), tuple(map(int, hidden)))

    def records(self, quantiles: Sequence[float] = QUANTILES) -> Iterator[dict[str, Any]]:
        """A flat record of each column, then of each label: what JSON and CSV have of them."""
        for column in self.columns:
            record: dict[str, Any] = {
                "column": column.column,
                "nodes": column.nodes,
                "silent": column.silent,
                "count": column.count,
                "missing": column.missing,
                "hides_missing": column.hides_missing,
                "mean": _known(column.mean),
                "variance": _known(column.variance),
                "std": _known(math.sqrt(column.variance)) if column.variance >= 0 else None,
                "hidden": column.hidden,
            }
            for q in quantiles:
                known = column.quantile(q)
                record[f"q{q:g}"] = known.value if known else None
                record[f"q{q:g}_least"] = known.least if known else None
                record[f"q{q:g}_most"] = known.most if known else None
            yield record | {"edges": list(column.edges), "cells": list(column.cells)}
        for label, (count, hidden) in enumerate(zip(self.labels, self.hidden_labels, strict=True)):
            yield {"label": label, "count": count, "nodes_hiding": hidden}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _column(name: str, row: Sequence[float], bins: int) -> ColumnFigures:
    nodes, silent, count, missing, hides, mean, m2, low, high = row[:ROW]
    edges = [low + at * (high - low) / bins for at in range(bins)] + [high] if high > low else []
    return ColumnFigures(
        column=name,
        nodes=int(nodes),
        silent=int(silent),
        count=count,
        missing=missing,
        hides_missing=int(hides),
        mean=mean if count else math.nan,
        variance=m2 / count if count else math.nan,
        edges=tuple(edges),
        lowest=tuple(row[ROW : ROW + bins]),
        cells=tuple(row[ROW + bins : ROW + 2 * bins]),
        highest=tuple(row[ROW + 2 * bins :]),
    )
