"""The files that `covey init` writes: a binary classification of the rows of a table, with made-up rows."""

from __future__ import annotations

import random

ROWS, FEATURES = 200, 4
TASK = '''"""A task for Covey: which of two classes does a row of a table belong to?"""

import csv
from pathlib import Path

import torch
from pydantic import Field
from torch import nn
from torch.utils.data import TensorDataset

from covey.learning.task import NodeData, Task

FEATURES = {features}


class {title}(Task):
    """Model and data; loss (cross entropy), metrics (loss, accuracy) and the training loop are Covey's defaults."""

    class Options(Task.Options):
        """What a run may set under [task.options]."""

        hidden: int = Field(default=16, ge=1, description="units of the hidden layer")

    options: Options

    def model(self) -> nn.Module:
        """Depends on the options only: the coordinator and every node build the same one."""
        return nn.Sequential(nn.Linear(FEATURES, self.options.hidden), nn.ReLU(), nn.Linear(self.options.hidden, 2))

    def train_data(self, data: NodeData) -> TensorDataset:
        """On each node, from the file that its operator named in node.toml: four rows of five train."""
        x, y = read(Path(data.paths["table"]))
        kept = torch.arange(len(y)) % 5 != 0
        return TensorDataset(x[kept], y[kept])

    def eval_data(self, data: NodeData) -> TensorDataset:
        """The fifth evaluates."""
        x, y = read(Path(data.paths["table"]))
        kept = torch.arange(len(y)) % 5 == 0
        return TensorDataset(x[kept], y[kept])


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [n, FEATURES] and int64 [n]: columns of a CSV file with a header; the last one is the class, 0 or 1."""
    with path.open(newline="") as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    table = torch.tensor(rows)
    return table[:, :-1], table[:, -1].long()
'''
RUN = """name = "{module}"
seed = 1

[task]
name = "{module}:{title}"
[task.options]
hidden = 16

[data]
partition = "iid"          # every node reads the same file and takes its own part; "local" if each has its own

[training]
learning_rate = 0.1
batch_size = 16
local_epochs = 1

[rounds]
count = 10
min_nodes = 2
"""
TEST = '''"""What Covey relies on in the task; run it with pytest, from this folder."""

from pathlib import Path

from {module} import {title}

from covey.learning.task import NodeData
from covey.testing.tasks import TaskConformance


class Test{title}(TaskConformance):
    task_class = {title}

    def node_data(self) -> NodeData:
        return NodeData({{"table": str(Path(__file__).parent / "{module}.csv")}})
'''
PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dashed}"
version = "0.1.0"
description = "A task for Covey"
requires-python = ">=3.11"
dependencies = ["covey>=0.1", "torch"]

[project.entry-points."covey.tasks"]
{dashed} = "{module}:{title}"

[tool.setuptools]
py-modules = ["{module}"]
"""
README = """# {title}: a task for Covey

```
covey task check --spec run.toml --data table={module}.csv      # model, batch, round, evaluation: no daemons
covey simulate run.toml --nodes 4 --path table={module}.csv     # a whole run in one process
python -m pytest test_{module}.py                               # all that Covey relies on
```

`{module}.py` is the task; `{module}.csv` has {rows} made-up rows. On real nodes: `pip install .` on the coordinator and
on every node, `name = "{dashed}"` in run.toml, and in each node's node.toml

```toml
[policy]
tasks = ["{dashed}"]
[data.paths]
table = "/srv/{module}.csv"
```
"""


def files_of(module: str) -> dict[str, str]:
    """The files by name.

    Args:
        module: The task's, a Python identifier in small letters.
    """
    title = "".join(part.capitalize() for part in module.split("_"))
    words = {"module": module, "title": title, "dashed": module.replace("_", "-"), "features": FEATURES, "rows": ROWS}
    return {
        f"{module}.py": TASK.format(**words),
        f"{module}.csv": _table(),
        "run.toml": RUN.format(**words),
        f"test_{module}.py": TEST.format(**words),
        "pyproject.toml": PROJECT.format(**words),
        "README.md": README.format(**words),
    }


def _table() -> str:
    """Rows whose class is 1 where their sum is above 0."""
    source = random.Random(1)
    rows = [[source.gauss(0, 1) for _ in range(FEATURES)] for _ in range(ROWS)]
    lines = [",".join([*(f"{value:.4f}" for value in row), str(int(sum(row) > 0))]) for row in rows]
    return "\n".join([",".join([*(f"x{number}" for number in range(1, FEATURES + 1)), "class"]), *lines]) + "\n"
