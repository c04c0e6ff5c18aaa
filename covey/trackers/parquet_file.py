"""A run's curves as a Parquet file, for data frames."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

from typing_extensions import override

from covey.trackers.contract import TrackedRun, needs
from covey.trackers.folders import Collected, Point, named


class ParquetFile(Collected):
    """DIR/NAME-RUN.parquet, written when the run has ended, or tracking is; the specification is in its metadata."""

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        try:
            self._arrow = importlib.import_module("pyarrow")
            self._parquet = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise needs("pyarrow", "parquet") from error
        return super().open(where, run)

    @override
    def write(self, folder: Path, run: TrackedRun, points: list[Point], models: list[Path], state: str) -> None:
        kinds = (self._arrow.string(), self._arrow.int64(), self._arrow.float64(), self._arrow.float64())
        about = {"covey": json.dumps(run.about() | {"state": state, "spec": dict(run.spec)})}
        schema = self._arrow.schema(list(zip(Point._fields, kinds, strict=True)), metadata=about)
        columns = zip(*points, strict=True) if points else [()] * len(Point._fields)
        table = self._arrow.table([list(column) for column in columns], schema=schema)
        path = folder / f"{named(run)}.parquet"
        new = path.with_name(f".{path.name}.new")
        self._parquet.write_table(table, new)
        os.replace(new, path)
