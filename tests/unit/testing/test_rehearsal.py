"""What an author reads of a task that goes wrong: what to do, and a traceback that begins in the author's own code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from covey.learning.task import LossOutput, NodeData, Task, _labels_advice
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


class Short(Line):
    def labelled(self) -> Tensor:
        return torch.zeros(8, dtype=torch.int32)


class Truths(Line):
    def labelled(self) -> Tensor:
        return torch.zeros(8, dtype=torch.bool)


class WholeScores(Line):
    """Labels are as they should be; what is wrong is something else."""

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        return super().loss(nn.Sequential(model, Rounds()), batch)


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.long()


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
        (Fractions, "labels are torch.float32: make them int64 (y.long())"),
        (Short, "labels are torch.int32: make them int64 (y.long())"),
        (Truths, "labels are torch.bool: make them int64 (y.long())"),
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


def test_what_is_wrong_beside_good_labels_is_not_laid_at_their_door() -> None:
    assert "labels" not in last_of(WholeScores)
    known = torch.tensor([0, -100])
    with pytest.raises(RuntimeError, match="not implemented for"):
        functional.cross_entropy(torch.zeros(2, 2, dtype=torch.long), known)
    assert _labels_advice(torch.zeros(2, 2, dtype=torch.long), known) == ""


@pytest.mark.parametrize("folder", ["lib/python3/site-packages", "src/app"])
def test_the_traceback_of_a_task_below_the_folder_of_python_is_shown(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"task_in_{folder.rpartition('/')[2].replace('-', '_')}"
    file = tmp_path / folder / f"{module}.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        f"from {__name__} import Line\n\n\nclass Own(Line):\n    def loss(self, model, batch):\n"
        "        raise ValueError('no column today')\n"
    )
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "ValueError: no column today" in last_of(f"{module}:Own")
    _, frame, *_ = capsys.readouterr().err.splitlines()
    assert frame.startswith(f'  File "{file}", line 6')


def last_of(task: type[Task] | str) -> str:
    """What is said last of a task that fails; a task, or its import path."""
    name = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    findings = list[tuple[bool, str]]()
    spec = parse_data({"name": "check", "task": {"name": name}, "training": {"local_steps": 1}})
    assert not shown(spec, {}, lambda finding: findings.append((finding.ok, finding.text)))
    assert not findings[-1][0]
    return findings[-1][1]
