"""A node's own report of its data (`covey data report`): all of it for its operator, and what statistics would share.

The program reads its question, JSON, from standard input (arguments are for all users of the machine to see), and
prints the report as JSON; what the task's code prints goes to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from covey.errors import CoveyError, SpecError
from covey.figures import QUANTILES, FiguresForm
from covey.learning.data import size_of
from covey.learning.returns import data_of, method_of
from covey.learning.streams import in_memory
from covey.learning.table import Table, table_of
from covey.learning.task import NodeData, Task, load_task, task_errors
from covey.methods.statistics.answers import columns_in, figures_answer, histogram, labels_in, ranges_answer
from covey.methods.statistics.combining import grid_of, widened
from covey.methods.statistics.hiding import HIDDEN
from covey.plugins import by_path
from covey.spec import TaskSection

MAX_LABELS = 10_000
"""Labels from 0 on that are counted in what would be shared."""
Json = dict[str, Any]
Counts = NDArray[np.int64]


class Examples(NamedTuple):
    """A node's training examples as its task describes them."""

    size: int
    table: Table
    labels: Counts | None
    """int64 `[size]`; None: the task says of none."""


def examples_of(task: Task, dataset: Dataset[Any]) -> Examples:
    """Ask the task once for columns and labels: either may take long."""
    labels = task.labels(dataset)
    shown = None if labels is None else labels.cpu().numpy().astype(np.int64)
    return Examples(size_of(dataset), table_of(task, dataset) or {}, shown)


def report_of(examples: Examples, bins: int) -> Json:
    """All that a node's operator sees: each column's kind, numbers, range, quantiles and histogram, and the labels'.

    Args:
        examples: The node's.
        bins: Of each histogram.
    """
    return {
        "examples": examples.size,
        "columns": [_column(name, values, bins) for name, values in examples.table.items()],
        "labels": None if examples.labels is None else _by_label(examples.labels),
    }


def _by_label(labels: Counts) -> dict[str, int]:
    values, counts = np.unique(labels, return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}


def _column(name: str, values: NDArray[np.float64], bins: int) -> Json:
    present = values[~np.isnan(values)]
    column: Json = {"column": name, "count": len(present), "missing": len(values) - len(present)}
    if not len(present):
        return column | {"kind": "empty"}
    low, high = widened(float(present.min()), float(present.max()))
    quantiles = np.quantile(present, QUANTILES, method="inverted_cdf")
    return column | {
        "kind": "integer" if (present == np.floor(present)).all() else "number",
        "different": len(np.unique(present)),
        "least": float(present.min()),
        "largest": float(present.max()),
        "mean": float(present.mean()),
        "std": float(present.std()),
        "quantiles": {f"{q:g}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        "range": [low, high],
        "cells": histogram(present, low, high, bins).tolist(),
    }


def shared_of(given: Examples, bins: int, k: int) -> Json:
    """What this node alone would say in a run of method `statistics`; null: hidden.

    The bins of a run are those of all nodes' ranges; here they are of this node's own.

    Args:
        given: The node's.
        bins: Of each histogram.
        k: Nothing is said of fewer examples; 0: of none at all.
    """
    examples, table, labels = given
    if not k or examples < k:
        return {"min_k": k, "examples": None, "columns": [], "labels": None}
    counts = np.zeros(0, np.int64)
    if labels is not None and len(labels) and labels.min() >= 0 and labels.max() < MAX_LABELS:
        counts = np.bincount(labels)
    form, columns = FiguresForm(tuple(table), bins, len(counts)), list(table.values())
    ranges = ranges_answer(examples, columns, form, k)
    grid = grid_of([ranges], form, {})
    answer = figures_answer(examples, columns, counts, grid, form, k)
    told = zip(table, columns_in(ranges, form), columns_in(answer, form), grid.tolist(), strict=True)
    return {
        "min_k": k,
        "examples": examples,
        "columns": [
            {
                "column": name,
                "count": None if not row.weight or row.missing == HIDDEN else int(row.weight),
                "missing": _open(row.missing),
                "mean": row.mean if row.weight else None,
                "std": (row.m2 / row.weight) ** 0.5 if row.weight else None,
                "range": edges if of_range.weight else None,
                "cells": [_open(count) for count in row.cells],
            }
            for name, of_range, row, edges in told
        ],
        "labels": {str(label): _open(count) for label, count in enumerate(labels_in(answer, form))} or None,
    }


def _open(count: float) -> int | None:
    return None if count == HIDDEN else int(count)


def stability_index(before: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of two histograms: sum over cells of (p - q) ln(p / q), p and q their shares.

    As in "A critical review of existing and new population stability testing procedures in credit risk scoring" (arXiv
    2303.01227); it is the Kullback-Leibler divergence both ways. Each cell has half an example more here, so that
    no share is 0. By convention less than 0.1 is no change to speak of, more than 0.25 a large one.

    Args:
        before: Examples by cell.
        now: The same cells.
    """
    p, q = (np.asarray(cells, np.float64) + 0.5 for cells in (now, before))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def drift_of(before: Json, examples: Examples) -> list[Json]:
    """How far the data are from those of an earlier report, by its own bins; missing values are one more cell.

    Args:
        before: The earlier report.
        examples: The node's now.

    Raises:
        SpecError: It is no report.
    """
    table, labels = examples.table, examples.labels
    try:
        rows = [_drifted(column, table.get(column["column"])) for column in before["columns"]]
        if before["labels"] is not None and labels is not None:
            now = _by_label(labels)
            names = sorted({*before["labels"], *now}, key=int)
            psi = stability_index(*([counts.get(name, 0) for name in names] for counts in (before["labels"], now)))
            rows.append({"column": "(labels)", "psi": psi})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"the earlier report is none: {error!r}; write one with covey data report --json") from error
    earlier = {column["column"] for column in before["columns"]}
    return rows + [{"column": name, "psi": None, "why": "it is new"} for name in table if name not in earlier]


def _drifted(before: Json, values: NDArray[np.float64] | None) -> Json:
    name, missing = before["column"], int(before["missing"])
    if values is None:
        return {"column": name, "psi": None, "why": "it is not there any more"}
    present = values[~np.isnan(values)]
    if before["kind"] == "empty":
        cells, now = [0], np.array([len(present)])
    else:
        cells, (low, high) = [int(count) for count in before["cells"]], map(float, before["range"])
        if not low < high:
            raise ValueError(f"a range from {low} to {high}")
        now = histogram(present, low, high, len(cells)) if len(present) else np.zeros(len(cells), np.int64)
    return {"column": name, "psi": stability_index([*cells, missing], [*now, len(values) - len(present)])}


def answered(question: Json) -> Json:
    """The report that is asked for.

    Args:
        question: `task` (name, options), `paths` and `options` (as of node.toml), `bins`, `min_k`, whether what would
            be `shared`, and the file of an earlier report (`against`) or none.

    Raises:
        CoveyError: The task, its data or the earlier report is not what it should be; the message says what.
    """
    task = load_task(TaskSection(**question["task"]), allow_path=True)
    with task_errors("the task's data"):
        data = task.train_data(NodeData(question["paths"], question["options"]))
        examples = examples_of(task, in_memory(data_of(data, method_of(task, "train_data"))))
    report = {"task": question["task"]["name"], **report_of(examples, question["bins"])}
    if question["shared"]:
        report["shared"] = shared_of(examples, question["bins"], question["min_k"])
    if question["against"]:
        report["drift"] = drift_of(_earlier(Path(question["against"])), examples)
    return report


def _earlier(path: Path) -> Json:
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} is no report ({error}); write one with covey data report --json") from error
    if not isinstance(report, Mapping) or not {"columns", "labels"} <= set(report):
        raise SpecError(f"{path} is no report: it has no columns; write one with covey data report --json")
    return dict(report)


def main() -> None:
    """The program."""
    question: Json = json.load(sys.stdin)
    sys.path.append(str(Path.cwd()))  # for the user's modules; behind everything else, so that it hides nothing
    out, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    try:
        with by_path(True):
            report = answered(question)
    except CoveyError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report), file=out)


if __name__ == "__main__":
    main()
