from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.scaled_sign import ScaledSign
from covey.errors import LayoutError, LimitExceeded, TaskError
from covey.layout import Layout, TensorSpec
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

CONTEXT = CodecContext(seed=1, round=1)


class TestConformance(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return ScaledSign()


def layout_of(*counts: int) -> Layout:
    return Layout(tuple(TensorSpec(f"t{i}", "float32", (count,)) for i, count in enumerate(counts)))


def test_format_is_a_mean_magnitude_for_each_tensor_and_the_signs() -> None:
    layout, vector = layout_of(2, 0, 3), torch.tensor([1.0, -3.0, 0.5, -0.5, 2.0])
    data = encoded(ScaledSign(), TensorVector(vector), replace(CONTEXT, layout=layout))
    assert data == struct.pack("<3f", 2.0, 0.0, 1.0) + bytes([0b10101])
    assert decoded(ScaledSign(), data, 5, layout).tolist() == [2.0, -2.0, 1.0, -1.0, 1.0]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_what_is_lost_is_what_the_paper_says(numbers: list[float]) -> None:
    p = torch.tensor(numbers, dtype=torch.float64)
    c = decoded(ScaledSign(), encoded(ScaledSign(), TensorVector(p.float()), CONTEXT), len(p)).double()
    wanted = p.square().sum() - p.abs().sum() ** 2 / len(p)
    torch.testing.assert_close((p - c).square().sum(), wanted, rtol=1e-5, atol=1e-6 * p.square().sum().item() + 1e-30)


def test_of_gaussian_values_two_over_pi_is_kept() -> None:
    p = torch.randn(1_000_000, generator=torch.Generator().manual_seed(3))
    c = decoded(ScaledSign(), encoded(ScaledSign(), TensorVector(p), CONTEXT), len(p))
    assert ((p - c).norm() / p.norm()).item() ** 2 == pytest.approx(1 - 2 / math.pi, abs=2e-3)


def test_a_scale_per_tensor_loses_less_than_one_for_all() -> None:
    layout = layout_of(500, 500)
    p = torch.cat([gaussian(500), 100 * gaussian(500, seed=2)])
    alone = decoded(ScaledSign(), encoded(ScaledSign(), TensorVector(p), replace(CONTEXT, layout=layout)), 1000, layout)
    for part in (slice(0, 500), slice(500, 1000)):
        single = encoded(ScaledSign(), TensorVector(p[part]), CONTEXT)
        assert torch.equal(alone[part], decoded(ScaledSign(), single, 500))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, -0.0])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(LayoutError, match="magnitude"):
        ScaledSign().reader(struct.pack("<f", scale) + b"\0", 3)


def test_a_layout_of_another_size_is_refused() -> None:
    with pytest.raises(LayoutError, match="5 elements does not fit a vector of 6"):
        ScaledSign().reader(bytes(9), 6, layout_of(2, 3))
    with pytest.raises(LimitExceeded):
        ScaledSign().reader(bytes(13), 5, layout_of(2, 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_encoded(value: float) -> None:
    for codec in (ScaledSign(),):
        with pytest.raises(TaskError, match="not finite"):
            encoded(codec, TensorVector(torch.tensor([1.0, value, 2.0])), CONTEXT)
