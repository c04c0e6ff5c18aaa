from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from covey.errors import TaskError
from covey.learning.common import count_of, drawn, ids_of, places, required
from covey.learning.tasks.digits import Digits


class Listed(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


def ids(*items: Any) -> list[int]:
    found: list[int] = ids_of(Listed(*items), torch.arange(len(items))).tolist()
    return found


def test_every_example_comes_before_any_comes_twice() -> None:
    rows = drawn(7, 17, 5, "purpose", 3)
    assert sorted(rows[:7].tolist()) == sorted(rows[7:14].tolist()) == list(range(7))
    assert torch.equal(rows, drawn(7, 17, 5, "purpose", 3))
    assert not torch.equal(rows, drawn(7, 17, 5, "purpose", 4))


def test_ids_follow_what_an_example_is_and_not_where_it_stands() -> None:
    x, y = torch.randn(9, 3), torch.arange(9)
    data, order = TensorDataset(x, y), torch.randperm(9)
    assert torch.equal(ids_of(TensorDataset(x[order], y[order]), torch.arange(9)), ids_of(data, order))
    assert len(set(ids_of(data, torch.arange(9)).tolist())) == 9


def test_examples_that_differ_in_anything_have_different_ids() -> None:
    zeros = torch.zeros(2)
    kinds: list[Any] = [zeros, torch.zeros(2, 1), zeros.double(), zeros.bfloat16(), np.ones(2), np.float32(1)]
    kinds += [(zeros, 1), (zeros, 2), (zeros, "1"), ["ab", "c"], ["a", "bc"], ((1, 2), 3), (1, (2, 3))]
    found = ids(*kinds, {"a": 1}, {"a": 1, "b": "x"})
    assert len(set(found)) == len(found)
    assert ids({"a": 1, "b": 2}) == ids({"b": 2, "a": 1})
    with pytest.raises(TaskError, match="an object, which has no bytes of its own"):
        ids(object())


def test_places_are_those_of_equal_ids() -> None:
    known = torch.tensor([5, -3, 9, 5])
    assert places(torch.tensor([9, 5, 7, -3, 10]), known).tolist() == [2, 0, -1, 1, -1]
    assert places(torch.tensor([1]), torch.empty(0, dtype=torch.int64)).tolist() == [-1]


def test_common_examples_of_the_digits_are_no_node_s_own() -> None:
    task, usual = Digits({"common": 100}), Digits()
    common, own = task.common_data(), task.train_data(None)  # type: ignore[arg-type]
    assert common is not None
    assert torch.equal(torch.cat([common.tensors[0], own.tensors[0]]), usual.train_data(None).tensors[0])  # type: ignore[arg-type]
    assert (count_of(task), count_of(usual)) == (100, 0)
    assert required(common, "it") is common
    with pytest.raises(TaskError, match=r"it needs examples that all nodes have"):
        required(usual.common_data(), "it")
