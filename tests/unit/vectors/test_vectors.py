"""Lazy vectors: every kind gives the same blocks wherever they are cut, into its own memory and into the reader's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from covey.errors import LayoutError
from covey.vectors import (
    FunctionVector,
    LinearCombination,
    PackedSigns,
    TensorVector,
    Vector,
    all_finite,
    is_finite,
    spans,
)
from covey.vectors.signs import packed

D = 1003
NUMBERS = torch.randn(D, generator=torch.Generator().manual_seed(4))
KINDS: dict[str, tuple[Vector, Tensor]] = {
    "tensor": (TensorVector(NUMBERS), NUMBERS),
    "function": (FunctionVector(D, lambda columns: NUMBERS[columns] * 2), NUMBERS * 2),
    "sum": (
        LinearCombination([(TensorVector(NUMBERS), 0.5), (TensorVector(NUMBERS), -2.0)]),
        NUMBERS * 0.5 - NUMBERS * 2,
    ),
    "signs": (
        PackedSigns(torch.frombuffer(bytearray(packed(NUMBERS >= 0)), dtype=torch.uint8), D, 0.25),
        torch.where(NUMBERS >= 0, 0.25, -0.25),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_block_is_the_same_in_own_memory_and_in_the_readers(kind: str, data: st.DataObject) -> None:
    vector, expected = KINDS[kind]
    start = data.draw(st.integers(0, D))
    stop = data.draw(st.integers(start, D))
    columns, out = slice(start, stop), torch.full((stop - start,), torch.nan)
    assert torch.equal(vector.read(columns), expected[columns])
    assert vector.read(columns, out) is out
    assert torch.equal(out, expected[columns])
    assert torch.equal(vector.dense(data.draw(st.integers(1, D))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_signs_are_those_of_the_values(kind: str) -> None:
    vector, expected = KINDS[kind]
    for columns in spans(D, 104):
        assert bytes(vector.signs(columns).numpy()) == bytes(packed(expected[columns] >= 0))


def test_a_term_of_factor_zero_is_never_read() -> None:
    def never(columns: slice) -> Tensor:
        raise AssertionError(f"{columns} were read")

    total = LinearCombination([(FunctionVector(3, never), 0.0), (TensorVector(torch.ones(3)), 2.0)])
    assert total.dense().tolist() == [2.0, 2.0, 2.0]
    assert LinearCombination([], 2).dense().tolist() == [0.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one length, not of \[2, 3\]"):
        LinearCombination([(TensorVector(torch.ones(2)), 1.0), (TensorVector(torch.ones(3)), 1.0)])
    with pytest.raises(ValueError, match="one length"):
        LinearCombination([])
    with pytest.raises(LayoutError, match="float64"):
        TensorVector(torch.ones(2, dtype=torch.float64))
    with pytest.raises(LayoutError, match="behind the last of 9"):
        PackedSigns(torch.tensor([0, 2], dtype=torch.uint8), 9)
    with pytest.raises(ValueError, match="at least one element"):
        spans(4, 0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_number_shows_and_an_overflowing_sum_does_not(bad: float) -> None:
    block = torch.ones(1000)
    assert is_finite(block)
    assert is_finite(torch.full((1000,), torch.finfo(torch.float32).max))
    block[999] = bad
    assert not is_finite(block)
    assert not all_finite(TensorVector(block), width=64)
    assert all_finite(TensorVector(block[:999]), width=64)
