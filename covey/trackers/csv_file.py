"""A run's curves as CSV, a line a point."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from typing_extensions import override

from covey.texts import no_formula
from covey.trackers.contract import TrackedRun
from covey.trackers.folders import Growing, Point, named, replace


class CsvFile(Growing):
    """DIR/NAME-RUN.csv: name, step, value and time of each point; the run and its specification beside it as JSON."""

    @override
    def path(self, folder: Path, run: TrackedRun) -> Path:
        return folder / f"{named(run)}.csv"

    @override
    def head(self, run: TrackedRun) -> bytes:
        replace(self._path.with_suffix(".json"), json.dumps(run.about() | {"spec": dict(run.spec)}, indent=1))
        return b"name,step,value,at\n"

    @override
    def line(self, point: Point) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([no_formula(point.name), *point[1:]])
        return text.getvalue().encode()
