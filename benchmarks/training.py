"""The worker's training step rate beside that of a plain PyTorch loop, on the same model, data and device.

The plain loop runs in this process, Covey's in a worker that it starts; they take turns, so that a slow
moment of the machine meets both. Covey's time is that of the whole job: loading the base model, training, and
writing the update, hashed and synced.

    python -m benchmarks.training [--device auto] [--models mlp,cnn] [--repeats 7] [--seconds 1.5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import NodeData, Task
from covey.seeds import derive_seed
from covey.spec import parse_data
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import INITIAL, TRAIN
from covey.worker.jobs.runs import InitialJob
from covey.worker.jobs.training import TrainJob

AIM = 0.95
TASK = "benchmarks.training:Images"
ROOT = Path(__file__).resolve().parents[1]


BATCH_SIZES = {"mlp": 32, "cnn": 64}


class Images(Task):
    """Random grey images, 28x28, ten classes: MNIST's shape without its file."""

    class Options(Task.Options):
        """[task.options]."""

        model: Literal["mlp", "cnn"] = "mlp"
        examples: int = Field(default=8192, ge=1)

    options: Options

    def model(self) -> nn.Module:
        """784-64-10, or two convolutions and two linear layers."""
        if self.options.model == "mlp":
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 49, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def train_data(self, data: NodeData) -> TensorDataset:
        """(float32 [1, 28, 28], int64 label)."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.options.examples, 1, 28, 28, generator=generator)
        return TensorDataset(x, torch.randint(10, (self.options.examples,), generator=generator))


@dataclass(frozen=True)
class Comparison:
    """Medians of one model's step rates."""

    model: str
    device: str
    batch_size: int
    steps: int
    plain_steps_per_s: float
    covey_steps_per_s: float
    ratio: float
    """Median over the repeats of Covey's rate by the plain loop's of the same turn."""


def plain_loop(task: Images, device: torch.device, batch_size: int, steps: int) -> float:
    """Train as anyone would write it, with the data on the device; the seconds that it took."""
    torch.manual_seed(derive_seed(0, "model"))
    model = task.model().to(device).train()
    x, y = (t.to(device) for t in task.train_data(NodeData()).tensors)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    began, done = time.perf_counter(), 0
    while done < steps:
        order = torch.randperm(len(x)).to(device)
        for batch in torch.split(order, batch_size)[: steps - done]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
    loss.item()
    return time.perf_counter() - began


class CoveyLoop:
    """The same training as a node's worker does it."""

    def __init__(self, worker: Worker, folder: Path, model: str, batch_size: int) -> None:
        self._worker, self._folder, self._model, self._batch_size = worker, folder, model, batch_size
        self._base = folder / "base"

    async def seconds(self, steps: int) -> float:
        """The seconds that a job of so many steps took, base model loaded and update written."""
        spec = parse_data(
            {
                "name": "benchmark",
                "task": {"name": TASK, "options": {"model": self._model}},
                "data": {"partition": "local"},
                "training": {"learning_rate": 0.01, "batch_size": self._batch_size, "local_steps": steps},
            }
        ).to_json()
        run = f"{self._model}-{steps}"
        first = await self._worker.do(INITIAL, InitialJob(run, spec, self._base, allow_path=True))
        job = TrainJob(
            run=run,
            spec_json=spec,
            layout=first.layout,
            round=1,
            roster_index=0,
            num_partitions=1,
            base=self._base,
            scratch={"model": self._folder / "model"},
            allow_path=True,
        )
        return (await self._worker.do(TRAIN, job)).seconds


async def compare(
    worker: Worker, folder: Path, model: str, device: torch.device, repeats: int, seconds: float
) -> Comparison:
    """Take turns; so many steps a turn that one lasts about `seconds`."""
    task, batch_size = Images({"model": model}), BATCH_SIZES[model]
    covey = CoveyLoop(worker, folder, model, batch_size)
    plain_loop(task, device, batch_size, 20)
    steps = max(20, round(seconds * 200 / plain_loop(task, device, batch_size, 200)))
    await covey.seconds(steps)
    plain, ours = [], []
    for _ in range(repeats):
        plain.append(steps / plain_loop(task, device, batch_size, steps))
        ours.append(steps / await covey.seconds(steps))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, plain, strict=True))
    rates = statistics.median(plain), statistics.median(ours)
    return Comparison(model, str(device), batch_size, steps, *rates, ratio)


async def measure(device: torch.device, models: list[str], repeats: int, seconds: float) -> list[Comparison]:
    """Compare each model, on one warm worker."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="covey-training-") as name:
        folder = Path(name)
        worker = await Worker.start(folder, device=str(device))
        try:
            return [await compare(worker, folder, model, device, repeats, seconds) for model in models]
        finally:
            await worker.stop()


def show(comparisons: list[Comparison]) -> None:
    """The comparisons as a table."""
    table = Table(title=f"Training steps per second (aim: ratio >= {AIM})")
    for column in ("model", "device", "batch", "steps", "plain PyTorch", "Covey's worker", "ratio"):
        table.add_column(column)
    for row in comparisons:
        rates = f"{row.plain_steps_per_s:.0f}", f"{row.covey_steps_per_s:.0f}"
        table.add_row(row.model, row.device, str(row.batch_size), str(row.steps), *rates, f"{row.ratio:.3f}")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print the result; exit code 0, whatever the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (the default)")
    parser.add_argument("--models", default="mlp,cnn", help="of mlp and cnn, with commas between them")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one turn, about")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(arguments)
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    models = options.models.split(",")
    comparisons = asyncio.run(measure(torch.device(name), models, options.repeats, options.seconds))
    if options.json:
        print(json.dumps({"torch": torch.__version__, "rows": [asdict(row) for row in comparisons]}))
    else:
        show(comparisons)
    return 0


if __name__ == "__main__":
    sys.exit(main())
