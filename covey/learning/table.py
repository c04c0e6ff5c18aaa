"""The columns of a task's examples, as `Task.table` gives them, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from covey.errors import TaskError
from covey.figures import LARGEST
from covey.learning.data import size_of
from covey.learning.returns import described, method_of, require
from covey.learning.task import Task

MAX_NAME = 100
Table = Mapping[str, NDArray[np.float64]]
"""Name to a value of each example, float64 `[n]`; NaN: it is missing."""


def table_of(task: Task, dataset: Dataset[Any], indices: Tensor | None = None, *, cut: bool = False) -> Table | None:
    """The columns of some examples; None: the task says of none.

    Args:
        task: Names them.
        dataset: As `Task.train_data` made it.
        indices: int64 `[m]`, the examples to look at; default all.
        cut: Cut values that are too large, instead of refusing them: an error tells that there are some.

    Raises:
        TaskError: What it returned are no columns; the message says what to return.
    """
    columns = task.table(dataset)
    if columns is None:
        return None
    what, should = method_of(task, "table"), "return a mapping of names to one number an example"
    size, rows = size_of(dataset), None if indices is None else indices.numpy()
    columns = require(columns, Mapping, what, should)
    for name in columns:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise TaskError(f"{what} returned a column called {name!r}; a name is 1 to {MAX_NAME} printable characters")
    return {name: _column(values, size, rows, f"{what}, column {name!r}", cut) for name, values in columns.items()}


def _column(values: Any, size: int, rows: NDArray[np.int64] | None, what: str, cut: bool) -> NDArray[np.float64]:
    try:
        column = np.asarray(values.cpu() if isinstance(values, Tensor) else values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{what}: {described(values)} is not numbers ({error}); give numbers") from error
    if column.shape != (size,):
        raise TaskError(f"{what}: numbers of shape {list(column.shape)}, and there are {size} examples: give [{size}]")
    column = column if rows is None else column[rows]
    column = np.where(np.isfinite(column), column, np.nan)
    if cut:
        return column.clip(-LARGEST, LARGEST)
    if (np.abs(column) > LARGEST).any():
        raise TaskError(f"{what}: values beyond {LARGEST:g}; give them in another unit")
    return column
