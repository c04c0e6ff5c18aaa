"""What an author reads of a task that goes wrong: what to do, and a traceback that begins in the author's own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from covey.learning.task import LossOutput, NodeData, Task
from covey.spec import parse_data
from covey.testing.rehearsal import shown


class Line(Task):
    """Eight rows of two classes."""

    label = 0

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def train_data(self, data: NodeData) -> TensorDataset:
        return TensorDataset(torch.ones(8, 4), self.labelled())

    def labelled(self) -> Tensor:
        return torch.full((8,), self.label)


class TooHigh(Line):
    label = 3


class Fractions(Line):
    def labelled(self) -> Tensor:
        return torch.zeros(8)


class Columns(Line):
    def labelled(self) -> Tensor:
        return torch.zeros(8, 1, dtype=torch.long)


class NoData(Line):
    def train_data(self, data: NodeData) -> TensorDataset:
        return 1  # type: ignore[return-value]


class Wide(Line):
    def model(self) -> nn.Module:
        return nn.Linear(5, 2)


class Raises(Line):
    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        raise ValueError("no column today")


class Lacking(Task):
    pass


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Lacking, "write `def model(self, ...)` in it"),
        (TooHigh, "labels go from 3 to 3, and the model has 2 outputs: labels are 0 to 1"),
        (Fractions, "labels are torch.float32: make them whole numbers (y.long())"),
        (NoData, "NoData.train_data"),
        (Wide, "mat1 and mat2 shapes cannot be multiplied (8x4 and 5x2)"),
        (Columns, "model(x) is (8, 2), and y is (8, 1): labels are a vector [n]"),
    ],
)
def test_what_an_author_gets_wrong_is_said_with_what_to_do(
    task: type[Task], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in last_of(task)
    assert "Traceback" not in capsys.readouterr().err


def test_a_traceback_begins_in_the_author_s_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ValueError: no column today (tests/unit/testing/test_rehearsal.py:" in last_of(Raises)
    first, frame, *_ = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert frame.startswith(f'  File "{__file__}", line ')


def last_of(task: type[Task]) -> str:
    """What is said last of a task that fails."""
    name, findings = f"{task.__module__}:{task.__qualname__}", list[tuple[bool, str]]()
    spec = parse_data({"name": "check", "task": {"name": name}, "training": {"local_steps": 1}})
    assert not shown(spec, {}, lambda finding: findings.append((finding.ok, finding.text)))
    assert not findings[-1][0]
    return findings[-1][1]
