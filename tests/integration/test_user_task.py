"""A task of the user's own, named by import path: trained where the operator allows it, declined where not."""

from __future__ import annotations

import os
import textwrap

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

TASK = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import NodeData, Task


class Line(Task):
    """y = 1 if the sum of x is positive; each node has its own file."""

    def model(self):
        return nn.Linear(4, 2)

    def train_data(self, data: NodeData):
        rows = torch.tensor([[float(v) for v in line.split(",")] for line in open(data.paths["table"])])
        return TensorDataset(rows[:, :-1], rows[:, -1].long())

    def eval_data(self, data: NodeData):
        return self.train_data(data)
'''


def test_a_task_by_import_path(tmp_path):
    (tmp_path / "my_tasks.py").write_text(TASK)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with Federation(tmp_path / "federation", nodes=2, env=env) as federation:
        federation.start_coordinator(options=["--allow-paths"])
        federation.join()
        allow(federation, 0, tmp_path, allowed=True)
        allow(federation, 1, tmp_path, allowed=False)
        for index in range(2):
            federation.start_node(index)
        federation.wait_connected(2)
        run = federation.submit(
            spec("line", task="my_tasks:Line", rounds=5, min_nodes=1, extra='[data]\npartition = "local"')
        )
        shown = federation.wait(run)
        assert shown["metrics"]["nodes/accuracy"] > 0.6
        detail = federation.admin.round(run, 1)
        verdicts = {u["node"]: (u["verdict"], u["reason"]) for u in detail["updates"]}
        assert verdicts["n0"][0] == "accepted"
        assert verdicts["n1"][0] == "declined"
        assert "allow_paths" in verdicts["n1"][1]


def allow(federation, index, folder, *, allowed):
    table = folder / f"table{index}.csv"
    rows = [[((i * 7 + j * 3) % 11 - 5) / 5 for j in range(4)] for i in range(200)]
    table.write_text("\n".join(",".join(map(str, [*row, int(sum(row) > 0)])) for row in rows))
    policy = 'allow_paths = ["my_tasks:Line"]' if allowed else ""
    (federation.node_dir(index) / "node.toml").write_text(
        textwrap.dedent(f"""
        [policy]
        {policy}
        [data.paths]
        table = "{table}"
        """)
    )
