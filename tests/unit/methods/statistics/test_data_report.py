"""A node's report: what it has, what would leave, and how far it is from an earlier one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import SpecError, TaskError
from covey.learning.table import table_of
from covey.learning.task import NodeData, Task
from covey.learning.tasks.digits import Digits
from covey.methods.statistics.data_report import (
    Examples,
    answered,
    drift_of,
    examples_of,
    report_of,
    shared_of,
    stability_index,
)


class Patients(Task):
    """Ages, of which some are missing, and whether they were treated, which few were."""

    def model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def train_data(self, data: NodeData) -> TensorDataset:
        source = np.random.default_rng(1)
        ages = source.normal(60, 10, 200)
        ages[:25] = np.nan
        rows = torch.tensor(np.stack([ages, np.arange(200) < 4], 1))
        return TensorDataset(rows, (torch.arange(200) % 2).long())

    def table(self, dataset: Dataset[Any]) -> dict[str, Any]:
        x, _ = dataset.tensors  # type: ignore[attr-defined]
        return {"age": x[:, 0], "treated": x[:, 1]}


def test_a_report_has_all_and_shares_what_is_above_k() -> None:
    task = Patients()
    data = task.train_data(NodeData())
    examples = examples_of(task, data)
    report = report_of(examples, 10)
    age, treated = report["columns"]
    ages = data.tensors[0][25:, 0].numpy()
    assert (age["count"], age["missing"], age["kind"], treated["kind"]) == (175, 25, "number", "integer")
    assert (age["least"], age["largest"], age["mean"]) == pytest.approx((ages.min(), ages.max(), ages.mean()))
    assert (sum(age["cells"]), report["labels"]) == (175, {"0": 100, "1": 100})
    shared = shared_of(examples, 25, 10)
    age, treated = shared["columns"]
    assert (age["count"], age["missing"]) == (175, 25)
    width = (age["range"][1] - age["range"][0]) / 25
    assert age["mean"] == pytest.approx(ages.mean(), abs=width / 2)
    assert age["std"] == pytest.approx(ages.std(), abs=width)
    assert None in age["cells"]
    assert not [count for count in age["cells"] if count is not None and 0 < count < 10]
    assert age["range"][0] > ages.min()  # of fewer than k values nothing is said
    assert {treated[key] for key in ("count", "missing", "mean", "std", "range")} == {None}  # four were
    assert shared["labels"] == {"0": 100, "1": 100}
    for k in (0, 201):
        assert shared_of(examples, 10, k) == {"min_k": k, "examples": None, "columns": [], "labels": None}


def test_drift_is_none_from_oneself_and_grows() -> None:
    task = Digits()
    data = task.train_data(NodeData())
    examples = examples_of(task, data)
    count, table, labels = examples
    assert labels is not None
    before = json.loads(json.dumps(report_of(examples, 20)))
    assert [row["psi"] for row in drift_of(before, examples)] == [0, 0]
    shifts = [
        drift_of(before, Examples(count, {"pixel-mean": table["pixel-mean"] + by}, labels))[0]["psi"]
        for by in (0.001, 0.02, 0.1)
    ]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0.1 < 0.25 < shifts[2]
    gone = drift_of(before, Examples(count, {"new": table["pixel-mean"]}, labels[labels < 5]))
    assert [row.get("why", "") for row in gone] == ["it is not there any more", "", "it is new"]
    assert gone[1]["psi"] > 0.25


def test_the_index_is_the_divergence_both_ways() -> None:
    p, q = np.array([20.5, 30.5, 50.5]) / 101.5, np.array([40.5, 40.5, 20.5]) / 101.5
    wanted = (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
    assert math.isclose(stability_index([40, 40, 20], [20, 30, 50]), wanted)


def test_the_task_is_asked_once_whatever_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def noted(name: str, given: Any) -> Any:
        def ask(*args: Any) -> Any:
            asked.append(name)
            return given(*args)

        return ask

    for name in ("table", "labels"):
        monkeypatch.setattr(Digits, name, noted(name, getattr(Digits, name)))
    question: dict[str, Any] = {"task": {"name": "digits", "options": {}}, "paths": {}, "options": {}, "bins": 5}
    question |= {"min_k": 5, "shared": True, "against": ""}
    path = tmp_path / "before.json"
    path.write_text(json.dumps(answered(question)))
    asked.clear()
    assert {"shared", "drift"} <= answered({**question, "against": str(path)}).keys()
    assert sorted(asked) == ["labels", "table"]


@pytest.mark.parametrize("text", ["", "[]", '{"columns": []}', '{"columns": [{"column": 1}], "labels": null}'])
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "before.json").write_text(text)
    task = {"name": "digits", "options": {}}
    question = {"task": task, "paths": {}, "options": {}, "bins": 5, "min_k": 0, "shared": False}
    with pytest.raises(SpecError, match="covey data report --json"):
        answered({**question, "against": str(tmp_path / "before.json")})


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ([1, 2], "a mapping of names"),
        ({"": [1.0] * 200}, "printable characters"),
        ({"a": [1.0] * 3}, r"shape \[3\], and there are 200"),
        ({"a": ["x"] * 200}, "is not numbers"),
        ({"a": [1e200] * 200}, "another unit"),
    ],
)
def test_columns_that_are_none_are_told_what_to_be(columns: Any, text: str) -> None:
    class Wrong(Patients):
        def table(self, dataset: Dataset[Any]) -> Any:
            return columns

    with pytest.raises(TaskError, match=text):
        table_of(Wrong(), Wrong().train_data(NodeData()))
