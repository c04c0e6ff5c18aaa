"""Runs on one worker, without daemons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from covey.spec import parse_data
from covey.worker.client.client import Worker
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.operations import INITIAL, STEP, TRAIN
from covey.worker.jobs.runs import InitialJob, InitialResult
from covey.worker.jobs.steps import StepAnswer, StepJob, StepResult
from covey.worker.jobs.training import TrainJob, TrainResult

NODES = 3


def spec_of(task: str = "Normed", /, **sections: Any) -> str:
    name = task if task.islower() else f"worker_tasks:{task}"
    fields: dict[str, Any] = {"name": "test", "seed": 7, "task": {"name": name}, **sections}
    fields.setdefault("training", {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 2})
    return parse_data(fields).to_json()


class Run:
    """A run on one worker, its files in one folder."""

    def __init__(self, worker: Worker | WorkerSupervisor, folder: Path, spec: str, name: str = "run") -> None:
        self.worker, self.folder, self.spec, self.name = worker, folder, spec, name
        self.base, self.layout, self.state = folder / "base", "", {}

    async def initial(self) -> InitialResult:
        made = await self.worker.do(INITIAL, InitialJob(self.name, self.spec, self.base, True))
        self.layout = made.layout
        return made

    def job(self, index: int, number: int = 1, **fields: Any) -> TrainJob:
        scratch = {part: self.folder / f"{part}-{index}" for part in ("model", "buffers")}
        fields = {"base": self.base, "scratch": scratch, "allow_path": True, **fields}
        return TrainJob(
            run=self.name,
            spec_json=self.spec,
            layout=self.layout,
            round=number,
            roster_index=index,
            num_partitions=NODES,
            **fields,
        )

    async def train(self, index: int, number: int = 1, **fields: Any) -> TrainResult:
        return await self.worker.do(TRAIN, self.job(index, number, **fields))

    def row(self, index: int, result: TrainResult) -> StepAnswer:
        return StepAnswer(f"node-{index}", result.examples, {p.name: p.path for p in result.parts})

    async def aggregate(self, rows: list[StepAnswer], number: int = 1, slots: tuple[str, ...] = ()) -> StepResult:
        result = await self.worker.do(
            STEP,
            StepJob(
                run=self.name,
                spec_json=self.spec,
                layout=self.layout,
                version=number - 1,
                models={number - 1: self.base},
                answers=tuple(rows),
                state=self.state,
                out=self.folder / f"version-{number}",
                out_state={slot: self.folder / f"{slot.replace('/', '-')}-{number}" for slot in slots},
            ),
        )
        self.state = {part.name: part.path for part in result.state}
        return result

    async def round(self, number: int, slots: tuple[str, ...] = ()) -> StepResult:
        rows = [self.row(i, await self.train(i, number)) for i in range(NODES)]
        result = await self.aggregate(rows, number, slots)
        self.base = self.folder / f"version-{number}"
        return result
