"""A run's curves in MLflow, as one of its runs."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from covey.errors import NotFound, SpecError
from covey.options import PluginOptions
from covey.trackers.contract import TrackedRun, Tracker, needs

BATCH = 1000
"""Metrics, and MAX_PARAMETERS parameters, that MLflow takes at once."""
MAX_PARAMETERS, MAX_VALUE = 100, 6000
STATES = {"completed": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
RUN, CURSOR = "covey.run", "covey.cursor"
MAX_TAG = 4000
"""Characters of one: MLflow cuts a tag that is longer than 5,000 or, newer ones, 8,000."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_./: -]")
_NO_PATH = re.compile(r"(?:^|(?<=/))(?:\.+|(?=/|$))")
"""At the beginning of a part between slashes: what makes a path another one, and what is a part of nothing."""
_PARTS = re.compile(r"parts ([ab]) ([0-9]{1,6})")
"""What stands in the cursor's tag where that is in several: under which letter, and how many."""


class MlflowRun(Tracker):
    """WHERE is a tracking server's address, or `sqlite:///FILE`. One MLflow run a run, found by its tag `covey.run`.

    How far it was told is a tag as well; a long one is in several, under one of two letters in turn, and the tag then
    says which: it is the old cursor or the new one, whenever a kill comes. A batch that was sent just before a kill is
    sent once more, and MLflow's databases take equal points once.
    """

    class Options(PluginOptions):
        """Options of `mlflow`."""

        experiment: str = Field(default="covey", min_length=1)
        """MLflow's experiment; it is made if it is not there."""

    options: Options

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        try:
            client = importlib.import_module("mlflow.tracking").MlflowClient
            self._entities = importlib.import_module("mlflow.entities")
            self._refusal = importlib.import_module("mlflow.exceptions").MlflowException
        except ModuleNotFoundError as error:
            raise needs("mlflow", "mlflow") from error
        if "://" not in where:
            raise SpecError(
                f"mlflow:{where}: write a server's address, as mlflow:http://127.0.0.1:5000, or sqlite:///FILE"
            )
        self._points, self._where = list[Any](), where
        with self._answering():
            self._client: Any = client(tracking_uri=where)
            return self._begin(where, run)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """What MLflow refuses, or where it does not answer, is said in Covey's words."""
        try:
            yield
        except (self._refusal, OSError) as error:
            raise NotFound(f"MLflow at {self._where}: {error}") from error

    def _begin(self, where: str, run: TrackedRun) -> str:
        name = self.options.experiment
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name, _beside(where))
        known = self._client.search_runs([number], f"tags.`{RUN}` = '{run.run}'")
        tags = {RUN: run.run, "covey.mode": run.mode, "covey.parent": run.parent}
        told = known[0] if known else self._client.create_run(number, int(run.submitted_at * 1000), tags, run.name)
        self._run = told.info.run_id
        values = [self._entities.Param(_key(key), str(value)[:MAX_VALUE]) for key, value in run.spec.items()]
        for first in range(0, len(values), MAX_PARAMETERS):
            self._client.log_batch(self._run, params=values[first : first + MAX_PARAMETERS])
        return self._cursor(told.data.tags)

    def _cursor(self, tags: Mapping[str, str]) -> str:
        """What was given to the last `save`."""
        text = str(tags.get(CURSOR, ""))
        match = _PARTS.fullmatch(text)
        self._letter = match[1] if match else "b"
        return "".join(tags[_part(match[1], place)] for place in range(int(match[2]))) if match else text

    @override
    def point(self, name: str, step: int, value: float, at: float) -> None:
        self._points.append(self._entities.Metric(_key(name), value, int(at * 1000), step))
        if len(self._points) >= BATCH:
            self._send()

    def _send(self) -> None:
        if self._points:
            with self._answering():
                self._client.log_batch(self._run, metrics=self._points)
            self._points = []

    @override
    def save(self, cursor: str) -> None:
        self._send()
        with self._answering():
            if len(cursor) > MAX_TAG:
                self._letter = "b" if self._letter == "a" else "a"
                parts = [cursor[first : first + MAX_TAG] for first in range(0, len(cursor), MAX_TAG)]
                for place, part in enumerate(parts):
                    self._client.set_tag(self._run, _part(self._letter, place), part)
                cursor = f"parts {self._letter} {len(parts)}"
            self._client.set_tag(self._run, CURSOR, cursor)

    @override
    def model(self, file: Path) -> None:
        with self._answering():
            self._client.log_artifact(self._run, str(file), "model")

    @override
    def close(self, state: str) -> None:
        if state in STATES:
            with self._answering():
                self._client.set_terminated(self._run, STATES[state])


def _beside(where: str) -> str | None:
    """Where files go of an experiment in a database: beside it. A server knows that itself."""
    database = where.removeprefix("sqlite:///")
    return (Path(database).absolute().parent / "mlruns").as_uri() if database != where else None


def _key(name: str) -> str:
    """A name as MLflow takes it: it reads it as a path, which may not be empty somewhere, nor go up."""
    return _NO_PATH.sub("_", _UNSAFE.sub("_", name))


def _part(letter: str, place: int) -> str:
    """The tag with one of the cursor's parts."""
    return f"{CURSOR}.{letter}.{place}"
