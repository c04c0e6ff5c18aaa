"""Figures as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from covey.cli.views.listing import Cell, Column, listing, safe_text
from covey.figures import QUANTILES, ColumnFigures, Figures


def figures_tables(figures: Figures, quantiles: Sequence[float] = QUANTILES) -> list[Any]:
    """Of each column a line, and of its quantiles; of each label one."""
    counted = Text(f"{figures.examples:,} examples of {figures.nodes} nodes")
    tables = [counted, _columns(figures.columns)]
    if any(column.edges for column in figures.columns) and quantiles:
        tables += [Text("quantiles, and between which values they lie"), _quantiles(figures.columns, quantiles)]
    if figures.labels:
        tables.append(_labels(figures))
    return tables


def _columns(columns: Sequence[ColumnFigures]) -> list[Any]:
    names = ("COUNT", "MISSING", "MEAN", "STD", "HIDDEN", "NODES")
    head = [Column("COLUMN"), *(Column(name, right=True) for name in names)]
    rows: list[tuple[Cell, ...]] = [
        (
            safe_text(column.column),
            f"{column.count:,.0f}" + ("+" if column.hides_missing else ""),
            f"{column.missing:,.0f}" + (f" and few of {column.hides_missing}" if column.hides_missing else ""),
            value(column.mean),
            value(math.sqrt(column.variance)) if column.variance >= 0 else "",
            f"{column.hidden:,.0f}",
            f"{column.nodes} of {column.nodes + column.silent}",
        )
        for column in columns
    ]
    return listing(head, rows)


def _quantiles(columns: Sequence[ColumnFigures], quantiles: Sequence[float]) -> list[Any]:
    head = [Column("COLUMN"), Column("QUANTILE", right=True), Column("VALUE", right=True), Column("BETWEEN")]
    rows: list[tuple[Cell, ...]] = []
    for column in columns:
        for q in quantiles:
            if (known := column.quantile(q)) is not None:
                least = "the least" if known.least is None else value(known.least)
                most = "the largest" if known.most is None else value(known.most)
                rows.append((safe_text(column.column), f"{q:g}", value(known.value), f"{least} and {most}"))
    return listing(head, rows)


def _labels(figures: Figures) -> list[Any]:
    head = [Column("LABEL", right=True), Column("EXAMPLES", right=True), Column("HIDDEN BY", right=True)]
    rows: list[tuple[Cell, ...]] = [
        (str(label), f"{count:,}", f"{hidden} of {figures.nodes}" if hidden else "")
        for label, (count, hidden) in enumerate(zip(figures.labels, figures.hidden_labels, strict=True))
    ]
    return listing(head, rows)


def value(number: float | None) -> str:
    """A number as a table has it; empty: there is none."""
    return "" if number is None or not math.isfinite(number) else f"{number:.6g}"
