"""Covey's own trackers keep what all must; those whose libraries are not installed are skipped."""

from __future__ import annotations

import csv
import importlib
import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from covey.errors import Conflict, PluginError, SpecError
from covey.testing.library.trackers import HOSTILE, Curves, TrackerConformance, run_named, tell
from covey.texts import no_formula
from covey.trackers.contract import TRACKERS, TrackedRun, Tracker, tracker_at
from covey.trackers.folders import named
from covey.trackers.mlflow_run import _key


def curves(points: Iterable[tuple[str, int, float]]) -> Curves:
    by_name = defaultdict[str, list[tuple[int, float]]](list)
    for name, step, value in points:
        by_name[name].append((step, value))
    return dict(by_name)


def read_csv(path: Path) -> Curves:
    with path.open(newline="") as file:
        return curves((row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file))


class TestCsv(TrackerConformance):
    def make(self) -> Tracker:
        return TRACKERS.make("csv")

    def told(self, where: str, run: TrackedRun) -> Curves:
        return read_csv(Path(where) / f"{named(run)}.csv")

    def test_the_specification_lies_beside_it(self, tmp_path: Path) -> None:
        tracker, run = self.make(), run_named(HOSTILE)
        tracker.open(str(tmp_path), run)
        tracker.close("")
        about = json.loads((tmp_path / f"{named(run)}.json").read_text())
        assert (about["name"], about["spec"]["seed"]) == (HOSTILE, 7)

    def test_two_processes_do_not_write_one_run(self, tmp_path: Path) -> None:
        tracker, run = self.make(), run_named("digits")
        tracker.open(str(tmp_path), run)
        with pytest.raises(Conflict, match=r"another process writes .*: end it, or name another folder"):
            self.make().open(str(tmp_path), run)
        tracker.close("")

    def test_a_file_that_was_cut_short_is_written_anew(self, tmp_path: Path) -> None:
        where, run = str(tmp_path), run_named("digits")
        for cursor in ("", "all", ""):
            tracker = self.make()
            assert tracker.open(where, run) == cursor
            if not cursor:
                tell(tracker, range(3))
                tracker.save("all")
            tracker.close("")
            assert self.told(where, run) == self.expected(range(3))
            if cursor:
                (tmp_path / f"{named(run)}.csv").write_text("name,step\n")


class TestParquet(TrackerConformance):
    def make(self) -> Tracker:
        pytest.importorskip("pyarrow", reason="covey[parquet] is not installed")
        return TRACKERS.make("parquet")

    def told(self, where: str, run: TrackedRun) -> Curves:
        parquet = importlib.import_module("pyarrow.parquet")
        table = parquet.read_table(Path(where) / f"{named(run)}.parquet")
        assert json.loads(table.schema.metadata[b"covey"])["run"] == run.run
        return curves((row["name"], row["step"], row["value"]) for row in table.to_pylist())


class TestTensorBoard(TrackerConformance):
    def make(self) -> Tracker:
        pytest.importorskip("tensorboard", reason="covey[tensorboard] is not installed")
        return TRACKERS.make("tensorboard")

    def told(self, where: str, run: TrackedRun) -> Curves:
        reading = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        events = reading.EventAccumulator(str(Path(where) / named(run))).Reload()
        assert run.run in events.Tensors("specification")[0].tensor_proto.string_val[0].decode()
        return {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore")  # of its own
class TestMlflow(TrackerConformance):
    """Slow: each database is made by MLflow's many migrations."""

    def make(self) -> Tracker:
        pytest.importorskip("mlflow", reason="covey[mlflow] is not installed")
        return TRACKERS.make("mlflow", {"experiment": "tests"})

    def where(self, folder: Path) -> str:
        return f"sqlite:///{folder}/mlflow.db"

    def expected(self, steps: range) -> Curves:
        points = super().expected(steps)
        return {_key(name): points[name] for name in points}

    def told(self, where: str, run: TrackedRun) -> Curves:
        client = importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=where)
        experiment = client.get_experiment_by_name("tests")
        (known,) = client.search_runs([experiment.experiment_id], f"tags.`covey.run` = '{run.run}'")
        assert known.data.params["seed"] == "7"
        history = {name: client.get_metric_history(known.info.run_id, name) for name in known.data.metrics}
        return {name: sorted((item.step, item.value) for item in points) for name, points in history.items()}


def records_of(log: bytes) -> Iterator[bytes]:
    """The records of W&B's LevelDB log: blocks of 32 KiB, of chunks with a checksum, a length and a type."""
    place, record = 7, b""  # behind W&B's own header
    while place < len(log):
        if (left := -place % 32768) < 7 and left:
            place += left
            continue
        length, kind = struct.unpack_from("<4xHB", log, place)
        record += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last chunk
            yield record
            record = b""


class TestWandb(TrackerConformance):
    def make(self) -> Tracker:
        pytest.importorskip("wandb", reason="covey[wandb] is not installed")
        return TRACKERS.make("wandb")

    def told(self, where: str, run: TrackedRun) -> Curves:
        importlib.import_module("wandb").teardown()  # its service writes what it still holds
        messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
        (file,) = Path(where).glob(f"wandb/offline-run-*-{run.run}/*.wandb")
        points = []
        for data in records_of(file.read_bytes()):
            record = messages.Record.FromString(data)
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            points += [(name, row["_step"], value) for name, value in row.items() if name[0] != "_" and name != "at"]
        return curves(points)


def test_a_target_that_is_none_says_how_it_is_written() -> None:
    with pytest.raises(
        SpecError, match=r"'curves' is not a tracker and a place; write NAME:WHERE, as csv:curves; trackers: csv, "
    ):
        tracker_at("curves")
    with pytest.raises(PluginError, match=r"no tracker named 'cvs' is installed here.*did you mean 'csv'"):
        tracker_at("cvs:curves")
    with pytest.raises(SpecError, match=r"tracker\.options\.colour"):
        tracker_at("csv:curves", {"colour": "red"})


def test_no_cell_is_a_formula() -> None:
    assert [no_formula(text) for text in ("=1+1", "@x", "a=1", "a\rb")] == ["'=1+1", "'@x", "a=1", "a b"]
