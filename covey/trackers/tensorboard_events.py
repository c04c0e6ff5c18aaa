"""A run's curves as TensorBoard shows them: a folder a run, one event file in it."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

from typing_extensions import override

from covey.trackers.contract import TrackedRun, needs
from covey.trackers.folders import Growing, Point, named


class TensorBoardEvents(Growing):
    """DIR/NAME-RUN/events.out.tfevents.covey: `tensorboard --logdir DIR`; the specification is among its texts."""

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        try:
            self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
            self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            self._records = importlib.import_module("tensorboard.summary.writer.record_writer")
        except ModuleNotFoundError as error:
            raise needs("tensorboard", "tensorboard") from error
        return super().open(where, run)

    @override
    def path(self, folder: Path, run: TrackedRun) -> Path:
        return folder / named(run) / "events.out.tfevents.covey"

    @override
    def head(self, run: TrackedRun) -> bytes:
        about = json.dumps(run.about() | {"spec": dict(run.spec)}, indent=1).replace("\n", "\n    ")
        text = self._summaries.Summary.Value(tag="specification")
        text.metadata.plugin_data.plugin_name = "text"
        text.tensor.dtype = 7  # DT_STRING
        text.tensor.string_val.append(f"    {about}".encode())  # Markdown: a block of code
        at = run.submitted_at
        return self._event(wall_time=at, file_version="brain.Event:2") + self._event(
            wall_time=at, summary=self._summaries.Summary(value=[text])
        )

    @override
    def line(self, point: Point) -> bytes:
        value = self._summaries.Summary.Value(tag=point.name, simple_value=point.value)
        return self._event(wall_time=point.at, step=point.step, summary=self._summaries.Summary(value=[value]))

    def _event(self, **fields: Any) -> bytes:
        """One record of the file: its length, its bytes, and a checksum of each."""
        file = io.BytesIO()
        self._records.RecordWriter(file).write(self._events.Event(**fields).SerializeToString())
        return file.getvalue()
