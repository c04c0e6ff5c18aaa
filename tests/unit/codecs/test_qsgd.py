from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.qsgd import QSGD
from covey.codecs.random_streams import uniforms
from covey.errors import LayoutError, SpecError
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

SEEDS = 400


class TestQSGD(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return QSGD()


class TestQSGDWithL2Norm(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return QSGD({"bits": 6, "norm": "l2", "bucket": 64})


class TestQSGDWithOddLevels(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return QSGD({"levels": 5, "bucket": 16})


class TestQSGDWith16Bits(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return QSGD({"bits": 16, "bucket": 128})


def samples(codec: Codec, vector: Tensor) -> Tensor:
    """What the vector decodes to over many seeds, float64 `[SEEDS, d]`."""
    rows = []
    for seed in range(SEEDS):
        data = encoded(codec, TensorVector(vector), CodecContext(seed=seed, round=1))
        rows.append(decoded(codec, data, len(vector)).double())
    return torch.stack(rows)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40), st.integers(0, 2**62))
def test_every_value_is_a_neighbour_on_the_grid_as_the_random_number_says(numbers: list[float], seed: int) -> None:
    vector, s = torch.tensor(numbers), 7
    found = decoded(QSGD(), encoded(QSGD(), TensorVector(vector), CodecContext(seed, 1)), len(vector))
    scale = vector.abs().max()
    steps = vector / scale * s if scale else vector
    wanted = torch.floor(steps + uniforms(seed, slice(0, len(vector)))).clamp(max=s)
    assert found.tolist() == (wanted / s * scale).tolist()
    assert ((wanted - steps).abs() <= 1).all()


@pytest.mark.parametrize("norm", ["max", "l2"])
@pytest.mark.parametrize("bits", [3, 5])
def test_variance_is_the_sum_over_the_grid(norm: str, bits: int) -> None:
    """E||Q(v) - v||^2 = sum of (m / s)^2 p (1 - p), p the distance to the lower level in steps."""
    vector, s = gaussian(512), 2 ** (bits - 1) - 1
    rows = samples(QSGD({"bits": bits, "norm": norm}), vector)
    m = float(vector.abs().max() if norm == "max" else vector.norm())
    p = (vector.double() / m * s) % 1
    wanted = float(((m / s) ** 2 * p * (1 - p)).sum())
    found = float((rows - vector).square().sum(1).mean())
    assert found == pytest.approx(wanted, rel=0.05)
    if norm == "l2":
        assert found <= min(512 / s**2, math.sqrt(512) / s) * float(vector.square().sum())


def test_error_is_d_over_6_s_squared_where_values_are_spread_evenly() -> None:
    vector = uniforms(9, slice(0, 512)) * 2 - 1
    vector[0] = 1.0
    rows = samples(QSGD({"bits": 5}), vector)
    assert float((rows - vector).square().sum(1).mean()) == pytest.approx(512 / (6 * 15**2), rel=0.05)


def test_maximum_is_far_more_exact_than_l2_on_a_long_vector() -> None:
    """The squared error relative to the vector, 10,000 elements and 4 bits: about 10 with l2, 0.06 with max."""
    vector = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    errors = {}
    for norm in ("max", "l2"):
        codec = QSGD({"norm": norm, "bucket": 16384})
        data = encoded(codec, TensorVector(vector), CodecContext(seed=1, round=1))
        errors[norm] = float((decoded(codec, data, 10_000) - vector).square().sum() / vector.square().sum())
    assert errors["l2"] == pytest.approx(10.3, rel=0.15)
    assert errors["max"] == pytest.approx(0.064, rel=0.3)


def test_an_l2_norm_beyond_float32_saturates_and_stays_unbiased() -> None:
    vector = torch.full((64,), 3e38)
    vector[::2] *= -0.5
    codec = QSGD({"norm": "l2", "bucket": 64, "bits": 8})
    rows = samples(codec, vector)
    assert rows.isfinite().all()
    assert torch.allclose(rows.mean(0), vector.double(), rtol=0.01)


def test_levels_need_as_few_bits_as_can_hold_them() -> None:
    sizes = {
        levels: QSGD({"levels": levels, "bucket": 1024}).encoded_bytes(1024) - 4 for levels in (1, 2, 3, 4, 127, 128)
    }
    assert {levels: size * 8 // 1024 for levels, size in sizes.items()} == {1: 2, 2: 3, 3: 3, 4: 4, 127: 8, 128: 9}


def test_codes_above_the_levels_are_refused() -> None:
    codec = QSGD({"levels": 2})
    assert codec.reader(struct.pack("<fB", 1.0, 4), 1).read(slice(0, 1)).tolist() == [1.0]
    for code in (5, 6, 7):
        with pytest.raises(LayoutError, match="qsgd: a code in segment 0"):
            codec.reader(struct.pack("<fB", 1.0, code), 1)


def test_options() -> None:
    with pytest.raises(SpecError, match="not both"):
        QSGD({"levels": 3, "bits": 4})
    for options, key in (
        ({"bits": 1}, "bits"),
        ({"bits": 17}, "bits"),
        ({"levels": 0}, "levels"),
        ({"norm": "l1"}, "norm"),
    ):
        with pytest.raises(SpecError, match=rf"exchange\.options\.{key}"):
            QSGD(options)


def test_the_largest_value_stays_itself_even_where_the_sum_with_the_random_number_rounds_up() -> None:
    """Of 16 bits: s + u rounds to s + 1 for one u in a thousand."""
    vector = torch.ones(30_000)
    data = encoded(QSGD({"bits": 16}), TensorVector(vector), CodecContext(seed=1, round=1))
    assert torch.equal(decoded(QSGD({"bits": 16}), data, len(vector)), vector)
