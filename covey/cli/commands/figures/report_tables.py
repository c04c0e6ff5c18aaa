"""A node's report of its data, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from covey.cli.commands.figures.tables import value
from covey.cli.views.listing import Cell, Column, listing, safe_text

LARGE, SOME = 0.25, 0.1
"""From which population stability index on a change is called large, and one at all, by convention."""


def report_tables(report: Mapping[str, Any]) -> list[Any]:
    """The data, what would be shared, and how far they are from an earlier report, as far as it was asked for."""
    tables: list[Any] = [Text(f"task {report['task']}: {report['examples']:,} examples")]
    tables.append(_columns(report["columns"]) if report["columns"] else Text("its task names no columns (Task.table)"))
    if report["labels"] is not None:
        tables.append(_labels(report["labels"]))
    if "shared" in report:
        tables += _shared(report["shared"])
    if "drift" in report:
        tables += [Text("drift from the earlier report (population stability index)"), _drift(report["drift"])]
    return tables


def _columns(columns: list[Mapping[str, Any]]) -> list[Any]:
    numbers = ("least", "0.25", "0.5", "0.75", "largest", "mean", "std")
    head = [Column("COLUMN"), Column("KIND"), Column("COUNT", right=True), Column("MISSING", right=True)]
    head += [Column(name.upper(), right=True, below="narrow" if name[0] == "0" else "never") for name in numbers]
    rows: list[tuple[Cell, ...]] = []
    for column in columns:
        known = {**column, **column.get("quantiles", {})}
        head_cells = (safe_text(column["column"]), column["kind"], f"{column['count']:,}", f"{column['missing']:,}")
        rows.append((*head_cells, *(value(known.get(name)) for name in numbers)))
    return listing(head, rows)


def _labels(labels: Mapping[str, int | None]) -> list[Any]:
    rows: list[tuple[Cell, ...]] = [(name, _count(count)) for name, count in labels.items()]
    return listing([Column("LABEL", right=True), Column("EXAMPLES", right=True)], rows)


def _count(count: int | None) -> str:
    return "hidden" if count is None else f"{count:,}"


def _shared(shared: Mapping[str, Any]) -> list[Any]:
    k = shared["min_k"]
    if not k:
        return [Text("shared: nothing; [policy] min_k in node.toml does not say of how few examples (or give --min-k)")]
    if shared["examples"] is None:
        return [Text(f"shared: nothing; there are fewer than {k} examples")]
    head = [Column("SHARED"), *(Column(n, right=True) for n in ("COUNT", "MISSING", "MEAN", "STD")), Column("RANGE")]
    head.append(Column("HIDDEN CELLS", right=True))
    rows: list[tuple[Cell, ...]] = []
    for column in shared["columns"]:
        between = " to ".join(map(value, column["range"])) if column["range"] else "hidden"
        hidden = sum(count is None for count in column["cells"])
        moments = tuple("hidden" if column[name] is None else value(column[name]) for name in ("mean", "std"))
        counts = _count(column["count"]), _count(column["missing"])
        rows.append((safe_text(column["column"]), *counts, *moments, between, f"{hidden} of {len(column['cells'])}"))
    tables: list[Any] = [Text(f"shared with a run: {shared['examples']:,} examples, and nothing of fewer than {k}")]
    tables += [listing(head, rows)] if rows else []
    return tables + ([_labels(shared["labels"])] if shared["labels"] else [])


def _drift(drift: list[Mapping[str, Any]]) -> list[Any]:
    head = [Column("COLUMN"), Column("PSI", right=True), Column("CHANGE")]
    rows: list[tuple[Cell, ...]] = [
        (safe_text(row["column"]), value(row["psi"]), row.get("why") or _in_words(row["psi"])) for row in drift
    ]
    return listing(head, rows)


def _in_words(psi: float) -> str:
    return "large" if psi > LARGE else "some" if psi > SOME else "little"
