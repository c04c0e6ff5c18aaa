"""A run's curves as an offline run of Weights & Biases."""

from __future__ import annotations

import importlib
import shutil
from collections import defaultdict
from pathlib import Path

from pydantic import Field
from typing_extensions import override

from covey.options import PluginOptions
from covey.trackers.contract import TrackedRun, needs
from covey.trackers.folders import Collected, Point


class WandbOffline(Collected):
    """DIR/wandb/offline-run-*: written when the run, or tracking, has ended; `wandb sync` sends it."""

    class Options(PluginOptions):
        """Options of `wandb`."""

        project: str = Field(default="covey", min_length=1)
        """The project that `wandb sync` puts it into."""

    options: Options

    @override
    def open(self, where: str, run: TrackedRun) -> str:
        try:
            self._wandb = importlib.import_module("wandb")
        except ModuleNotFoundError as error:
            raise needs("wandb", "wandb") from error
        return super().open(where, run)

    @override
    def write(self, folder: Path, run: TrackedRun, points: list[Point], models: list[Path], state: str) -> None:
        for earlier in folder.glob(f"wandb/offline-run-*-{run.run}"):
            shutil.rmtree(earlier)
        steps = defaultdict[int, dict[str, float]](dict)
        for point in points:
            steps[point.step] |= {point.name: point.value, "at": point.at}
        config = {**run.about(), "spec": dict(run.spec)}
        settings = self._wandb.Settings(
            mode="offline", console="off", silent=True, disable_git=True, x_disable_stats=True
        )
        with self._wandb.init(
            project=self.options.project, id=run.run, name=run.name, dir=str(folder), config=config, settings=settings
        ) as told:
            for step in sorted(steps):
                told.log(steps[step], step=step)
            told.summary["state"] = state
            for model in models:
                told.log_artifact(str(model), name=f"model-{run.run}", type="model")
