from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.random_streams import uniforms
from covey.codecs.terngrad import TernGrad
from covey.errors import LayoutError, SpecError, TaskError
from covey.layout import Layout, TensorSpec
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector


class TestTernGrad(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return TernGrad()


class TestTernGradClipped(CodecConformance):
    def make(self) -> Codec:
        return TernGrad({"clip": 2.5})


class TestTrits(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return TernGrad({"packing": "trits"})


def layout_of(*counts: int) -> Layout:
    return Layout(tuple(TensorSpec(f"t{i}", "float32", (count,)) for i, count in enumerate(counts)))


def round_trip(codec: Codec, vector: Tensor, seed: int, layout: Layout | None = None) -> Tensor:
    data = encoded(codec, TensorVector(vector), CodecContext(seed=seed, round=1, layout=layout))
    return decoded(codec, data, len(vector), layout)


def test_values_are_the_formula_tensor_by_tensor() -> None:
    vector, layout = gaussian(100), layout_of(30, 0, 70)
    vector[:30] *= 1000
    found = round_trip(TernGrad(), vector, 3, layout)
    noise = uniforms(3, slice(0, 100))
    for part in (slice(0, 30), slice(30, 100)):
        m = np.float32(vector[part].abs().max())
        wanted = [m * np.floor(x / m + u) for x, u in zip(vector[part].numpy(), noise[part].numpy(), strict=True)]
        assert found[part].tolist() == [float(x) for x in wanted]
        assert set(found[part].tolist()) <= {float(-m), 0.0, float(m)}


def test_error_is_m_times_l1_less_l2_squared() -> None:
    vector = torch.randn(300, generator=torch.Generator().manual_seed(1))
    squares = [float((round_trip(TernGrad(), vector, seed) - vector).square().sum()) for seed in range(500)]
    wanted = vector.abs().max() * vector.abs().sum() - vector.square().sum()
    assert np.mean(squares) == pytest.approx(float(wanted), rel=0.03)


def test_relative_error_on_a_gaussian_vector() -> None:
    """Squared, about 0.8 m / sigma - 1 with m near 4.3 sigma for 100,000 elements."""
    vector = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    error = float((round_trip(TernGrad(), vector, 1) - vector).square().sum() / vector.square().sum())
    assert error == pytest.approx(float(vector.abs().max()) * (2 / np.pi) ** 0.5 - 1, rel=0.05)


def test_clipping_cuts_to_standard_deviations_of_each_tensor() -> None:
    vector, layout = gaussian(2000), layout_of(1500, 500)
    found = round_trip(TernGrad({"clip": 1.5}), vector, 3, layout)
    for part in (vector[:1500], vector[1500:]):
        bound = float(np.float32(1.5 * part.double().std(correction=0)))
        assert bound < float(part.abs().max())
        values = found[: len(part)] if len(part) == 1500 else found[1500:]
        assert float(values.abs().max()) == pytest.approx(bound, rel=1e-6)
        assert (values[part >= bound * 1.01] == values.max()).all()


def test_the_form_is_scales_then_two_bits_an_element() -> None:
    vector, layout = torch.tensor([2.0, -2.0, 0.0, 0.5, -0.5]), layout_of(3, 0, 2)
    data = encoded(TernGrad(), TensorVector(vector), CodecContext(seed=0, round=1, layout=layout))
    assert data[:12] == struct.pack("<3f", 2.0, 0.0, 0.5)
    # Codes 2, 0, 1, 2 | 0: two bits each, the first lowest.
    assert data[12:] == bytes([0b10_01_00_10, 0b00])
    assert decoded(TernGrad(), data, 5, layout).tolist() == vector.tolist()


def test_trits_are_five_elements_a_byte_and_decode_to_the_same() -> None:
    vector, layout = torch.tensor([2.0, -2.0, 0.0, 0.5, -0.5, 0.5]), layout_of(3, 0, 3)
    codec = TernGrad({"packing": "trits"})
    data = encoded(codec, TensorVector(vector), CodecContext(seed=0, round=1, layout=layout))
    # Codes 2, 0, 1, 2, 0 | 2.
    assert data[12:] == bytes([2 + 0 * 3 + 1 * 9 + 2 * 27 + 0 * 81, 2])
    assert decoded(codec, data, 6, layout).tolist() == vector.tolist()
    long = gaussian(200_003)
    context = CodecContext(seed=4, round=1)
    small, plain = encoded(codec, TensorVector(long), context), encoded(TernGrad(), TensorVector(long), context)
    assert len(small) == 4 + 40_001 < 0.81 * len(plain)
    assert torch.equal(decoded(codec, small, 200_003), decoded(TernGrad(), plain, 200_003))


def test_trits_without_meaning_are_refused() -> None:
    codec, scale = TernGrad({"packing": "trits"}), struct.pack("<f", 1.0)
    with pytest.raises(LayoutError, match="no meaning"):
        codec.reader(scale + bytes([243]), 5)
    with pytest.raises(LayoutError, match="behind the last one"):
        codec.reader(scale + bytes([9]), 2)


def test_a_code_without_meaning_and_padding_are_refused() -> None:
    scale = struct.pack("<f", 1.0)
    with pytest.raises(LayoutError, match="no meaning"):
        TernGrad().reader(scale + bytes([0b11_00]), 2)
    with pytest.raises(LayoutError, match="behind the last code"):
        TernGrad().reader(scale + bytes([0b01_00_00]), 2)


@pytest.mark.parametrize("scale", [-1.0, -0.0, float("inf"), float("nan")])
def test_scales_that_are_no_magnitudes_are_refused(scale: float) -> None:
    with pytest.raises(LayoutError, match="negative or not finite"):
        TernGrad().reader(struct.pack("<fB", scale, 0), 1)


def test_a_layout_of_another_size_is_refused() -> None:
    with pytest.raises(LayoutError, match="9 elements does not fit a vector of 10"):
        TernGrad().encoded_bytes(10, layout_of(4, 5))
    assert TernGrad().encoded_bytes(9, layout_of(4, 5)) == 2 * 4 + 3


def test_values_that_are_not_finite_are_refused_even_of_a_careless_source() -> None:
    with pytest.raises(TaskError, match="not finite"):
        encoded(TernGrad(), TensorVector(torch.tensor([1.0, float("nan")])), CodecContext(seed=1, round=1))


def test_a_clip_that_is_not_positive_is_refused() -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.clip"):
        TernGrad({"clip": 0})


def test_the_largest_value_with_the_largest_random_number_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the sum of 1 and the number next below 1 is 2."""
    largest = torch.full((4,), 1 - 2.0**-24)
    monkeypatch.setattr("covey.codecs.terngrad.uniforms", lambda seed, columns: largest)
    assert round_trip(TernGrad(), torch.tensor([1.0, -1.0, 1.0, 0.5]), 1).tolist() == [1.0, -1.0, 1.0, 1.0]
