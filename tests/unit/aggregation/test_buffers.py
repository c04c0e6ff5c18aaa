from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from covey.aggregation.buffers import combine_buffers, finite_buffers
from covey.errors import LayoutError
from covey.layout import Layout, TensorSpec

LAYOUT = Layout.of(
    [
        TensorSpec("bn.mean", "float32", (3,), "buffers"),
        TensorSpec("bn.count", "int64", (), "buffers"),
        TensorSpec("half", "bfloat16", (2,), "buffers"),
        TensorSpec("mask", "bool", (3,), "buffers"),
        TensorSpec("levels", "int8", (2,), "buffers"),
    ]
)
DTYPE = {
    "float32": torch.float32,
    "int64": torch.int64,
    "bfloat16": torch.bfloat16,
    "bool": torch.bool,
    "int8": torch.int8,
}


def raw(values: dict[str, object]) -> Tensor:
    pieces = [torch.tensor(values[t.name], dtype=DTYPE[t.dtype]).reshape(-1).view(torch.uint8) for t in LAYOUT.tensors]
    return torch.cat(pieces)


def values(buffer: Tensor) -> dict[str, list[float]]:
    found, start = {}, 0
    for t in LAYOUT.tensors:
        found[t.name] = buffer[start : start + t.nbytes].view(DTYPE[t.dtype]).tolist()
        start += t.nbytes
    return found


ROWS = [
    raw({"bn.mean": [1.0, -2.0, 0.0], "bn.count": 10, "half": [1, 3], "mask": [1, 1, 0], "levels": [-128, 5]}),
    raw({"bn.mean": [3.0, -2.0, 8.0], "bn.count": 13, "half": [2, 3], "mask": [0, 1, 0], "levels": [127, 5]}),
    raw({"bn.mean": [9.0, -2.0, 1.0], "bn.count": 90, "half": [6, 3], "mask": [0, 1, 1], "levels": [127, 6]}),
]


def test_mean_keeps_dtypes_and_rounds_integers() -> None:
    shares = [0.5, 0.25, 0.25]
    found = values(combine_buffers(LAYOUT, ROWS, torch.tensor(shares, dtype=torch.float64)))
    assert found["bn.mean"] == pytest.approx([0.5 * 1 + 0.25 * 3 + 0.25 * 9, -2.0, 2.25])
    assert found["bn.count"] == [round(0.5 * 10 + 0.25 * 13 + 0.25 * 90)]
    assert found["half"] == [2.5, 3.0]
    assert found["mask"] == [False, True, False]
    assert found["levels"] == [round(-0.5 * 128 + 0.5 * 127), 5]


def test_median_takes_no_notice_of_shares() -> None:
    found = values(combine_buffers(LAYOUT, ROWS, torch.tensor([1.0, 0.0, 0.0]).double(), "median"))
    assert found == {
        "bn.mean": [3.0, -2.0, 1.0],
        "bn.count": [13],
        "half": [2.0, 3.0],
        "mask": [False, True, False],
        "levels": [127, 5],
    }


def test_median_of_an_even_number() -> None:
    found = values(combine_buffers(LAYOUT, ROWS[:2], torch.tensor([0.5, 0.5]).double(), "median"))
    assert found["bn.mean"] == [statistics.median([1.0, 3.0]), -2.0, 4.0]
    assert found["bn.count"] == [statistics.median_low([10, 13])]


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_buffers_that_all_agree_stay_to_the_bit(rule: str) -> None:
    layout = Layout.of(
        [
            TensorSpec("hash", "int64", (2,), "buffers"),
            TensorSpec("wide", "float64", (3,), "buffers"),
            TensorSpec("flag", "bool", (2,), "buffers"),
        ]
    )
    parts = {
        "hash": torch.tensor([2**62 + 1, -(2**60) - 3]),
        "wide": torch.tensor([0.1, 1 / 3, -7e-300], dtype=torch.float64),
        "flag": torch.tensor([True, False]),
    }
    row = torch.cat([parts[t.name].view(torch.uint8) for t in layout.tensors])
    shares = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    assert torch.equal(combine_buffers(layout, [row] * 3, shares, rule), row)  # type: ignore[arg-type]


def test_a_tie_of_bools_is_false() -> None:
    found = values(combine_buffers(LAYOUT, ROWS[:2], torch.tensor([0.5, 0.5]).double()))
    assert found["mask"] == [False, True, False]


def test_rows_are_not_modified() -> None:
    before = [row.clone() for row in ROWS]
    for rule in ("mean", "median"):
        combine_buffers(LAYOUT, ROWS, torch.tensor([0.2, 0.3, 0.5]).double(), rule)
    assert all(torch.equal(a, b) for a, b in zip(ROWS, before, strict=True))


def test_only_finite_floats_pass() -> None:
    good = {"bn.count": 1, "half": [1, 2], "mask": [0, 0, 1], "levels": [0, 0]}
    assert finite_buffers(LAYOUT, ROWS[0])
    assert not finite_buffers(LAYOUT, raw({**good, "bn.mean": [1.0, float("nan"), 0.0]}))
    assert not finite_buffers(LAYOUT, raw({**good, "bn.mean": [1, 1, 1], "half": [float("inf"), 0]}))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(LayoutError, match="raw bytes"):
        combine_buffers(LAYOUT, [ROWS[0][:-1]], torch.ones(1))
    with pytest.raises(LayoutError, match="one share for each row"):
        combine_buffers(LAYOUT, ROWS, torch.ones(2))
    with pytest.raises(LayoutError, match="one share for each row"):
        combine_buffers(LAYOUT, [], torch.ones(0))


def test_a_part_without_tensors_is_empty() -> None:
    assert combine_buffers(Layout.of([]), [torch.empty(0, dtype=torch.uint8)], torch.ones(1)).shape == (0,)
