"""What a task's code changes of the whole process is put back: the next run of the same worker is clean."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import NodeData, Task
from covey.spec import parse_data
from covey.testing.launch.forks import forked_workers
from covey.testing.method_rounds import PlainExample, examples
from covey.worker.client.client import Worker
from covey.worker.jobs.operations import DESCRIBE, INITIAL
from covey.worker.jobs.runs import DescribeJob, InitialJob

pytestmark = pytest.mark.processes


class Careless(Task):
    """Changes what all share, wherever it is asked something."""

    def model(self) -> nn.Module:
        """A layer."""
        return nn.Linear(8, 2)

    def train_data(self, data: NodeData) -> TensorDataset:
        """Some."""
        return examples(10, 1)

    def central_data(self) -> TensorDataset:
        """The same, and what it leaves behind."""
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        os.chdir("/")
        return examples(10, 1)


def spec_of(task: type[Task]) -> str:
    return parse_data({"name": "r", "task": {"name": f"{task.__module__}:{task.__name__}"}}).to_json()


async def test_the_next_run_is_clean(tmp_path: Path) -> None:
    with forked_workers():
        worker = await Worker.start(tmp_path / "worker")
    try:
        described = await worker.do(DESCRIBE, DescribeJob(spec_of(Careless), allow_path=True))
        assert described.central
        job = InitialJob("run", spec_of(PlainExample), tmp_path / "model", allow_path=True)
        made = await worker.do(INITIAL, job)
        assert {tensor[1] for tensor in json.loads(made.layout)} == {"float32"}
    finally:
        await worker.stop()
