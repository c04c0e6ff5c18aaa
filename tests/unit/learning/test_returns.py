"""What a task's methods return is looked at, and what is wrong with it is told with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from covey.errors import TaskError
from covey.learning.returns import data_of, method_of, model_of
from covey.learning.task import FitResult, FitSettings, LossOutput, NodeData, Stat, Task
from covey.learning.training.loop import evaluate, train
from covey.spec import TrainingSection

DATA = TensorDataset(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
PLACE = r"\(.*test_returns\.py:\d+\)"
ONE_STEP = TrainingSection(local_steps=1)


class Odd(Task):
    """Returns what it is given."""

    returned: Any = None

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def train_data(self, data: NodeData) -> TensorDataset:
        return DATA

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        found: LossOutput = self.returned(super().loss(model, batch))
        return found


class OddFit(Task):
    returned: Any = None

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def train_data(self, data: NodeData) -> TensorDataset:
        return DATA

    def fit(self, model: Any, data: Any, settings: Any) -> FitResult | None:
        found: FitResult | None = self.returned
        return found


def trained(task: Task) -> FitResult:
    order = torch.arange(8)
    cpu = torch.device("cpu")
    return train(
        task, task.model(), DATA, FitSettings(ONE_STEP, order, round=1, rounds=1, seed=1, roster_index=0, device=cpu)
    )


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda out: out.loss, r"returned a tensor of shape \[\]; return LossOutput\(loss, examples\)"),
        (lambda out: (out.loss, 8), r"returned a tuple; return LossOutput"),
        (lambda out: None, r"returned None; return LossOutput"),
        (lambda out: LossOutput(out.logits, 8), r"whose loss is a tensor of shape \[8, 2\]; its loss is one number"),
        (lambda out: LossOutput(out.loss.item(), 8), r"whose loss is the float .*; its loss is one number"),
        (lambda out: LossOutput(out.loss, 0), r"with the int 0 as examples; give how many"),
        (lambda out: replace(out, examples=None), r"with None as examples; give how many"),
    ],
)
def test_a_loss_is_told_what_to_return(returned: Any, told: str) -> None:
    task = Odd()
    task.returned = returned
    with pytest.raises(TaskError, match=rf"Odd\.loss {PLACE} .*{told}"):
        trained(task)
    with pytest.raises(TaskError, match=rf"Odd\.loss {PLACE} .*{told}"):
        evaluate(task, task.model(), DATA, 8, torch.device("cpu"))


def test_a_loss_that_nothing_can_be_learned_from_is_named() -> None:
    task = Odd()
    task.returned = lambda out: LossOutput(out.loss.detach(), 8)
    with pytest.raises(TaskError, match=rf"the loss of Odd\.loss {PLACE} does not depend on a trainable parameter"):
        trained(task)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (8, r"returned the int 8; return FitResult\("),
        (FitResult(0, 1, {}), "with the int 0 as examples; give a whole number"),
        (FitResult(8, None, {}), "with None as steps; give a whole number"),  # type: ignore[arg-type]
        (FitResult(8, 1, {"loss": 0.5}), r"returned the float 0.5 for 'loss'; return"),  # type: ignore[dict-item]
        (FitResult(8, 1, None), r"returned None; return a mapping of names to Stat"),  # type: ignore[arg-type]
    ],
)
def test_a_training_of_ones_own_is_told_what_to_return(returned: Any, told: str) -> None:
    task = OddFit()
    task.returned = returned
    with pytest.raises(TaskError, match=rf"OddFit\.fit {PLACE} .*{told}"):
        trained(task)


def test_a_training_of_ones_own_may_leave_a_metric_out() -> None:
    task = OddFit()
    task.returned = FitResult(8, 1, {"loss": Stat.missing("not measured")})
    assert trained(task).metrics["loss"].why_missing == "not measured"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "returned None; return a data set"),
        (DataLoader(DATA), r"a DataLoader; return its data set \(loader.dataset\)"),
        ((torch.zeros(2), torch.zeros(2)), r"a tuple; put the tensors into .*TensorDataset\(x, y\)"),
        (torch.zeros(2), r"a tensor of shape \[2\]; put the tensors into"),
        ({"x": torch.zeros(2)}, "a dict; return a data set"),
        ("data.csv", "the str 'data.csv'; return a data set"),
    ],
)
def test_data_are_told_what_to_be(value: Any, told: str) -> None:
    with pytest.raises(TaskError, match=told):
        data_of(value, "Task.train_data")


def test_data_that_are_data() -> None:
    assert data_of(DATA, "") is DATA
    assert data_of([(torch.zeros(2), 1)], "")


def test_a_model_is_an_object() -> None:
    with pytest.raises(TaskError, match=r"Odd\.model \(.*\) returned a type; return a torch.nn.Module"):
        model_of(nn.Linear, method_of(Odd(), "model"))
