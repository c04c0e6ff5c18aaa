from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.floats import Bf16, Fp8, Fp16
from covey.errors import LayoutError, LimitExceeded, SpecError
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

CONTEXT = CodecContext(seed=1, round=1)
LARGEST = float(torch.finfo(torch.float32).max)
FORMATS = {"e4m3": (torch.float8_e4m3fn, 448.0), "e5m2": (torch.float8_e5m2, 57344.0)}
numbers32 = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


class TestBf16(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Bf16()


class TestFp16(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Fp16()


class TestFp8E4M3(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Fp8()


class TestFp8E5M2(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Fp8({"format": "e5m2", "block": 32})


def round_trip(codec: Codec, vector: torch.Tensor) -> torch.Tensor:
    return decoded(codec, encoded(codec, TensorVector(vector), CONTEXT), len(vector))


@settings(deadline=None)
@given(numbers32)
def test_fp16_is_ieee_binary16_with_saturation(numbers: list[float]) -> None:
    data = encoded(Fp16(), TensorVector(torch.tensor(numbers)), CONTEXT)
    wanted = b"".join(struct.pack("<e", max(-65504.0, min(65504.0, number))) for number in numbers)
    assert data == wanted


def nearest_bfloat16(number: float) -> bytes:
    """The upper half of a float32's bits, rounded to the nearest, ties to even; never infinity."""
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    if rounded & 0x7FFF >= 0x7F80:
        rounded = (rounded & 0x8000) | 0x7F7F
    return struct.pack("<H", rounded)


@settings(deadline=None)
@given(numbers32)
def test_bf16_is_the_upper_half_rounded(numbers: list[float]) -> None:
    data = encoded(Bf16(), TensorVector(torch.tensor(numbers)), CONTEXT)
    assert data == b"".join(map(nearest_bfloat16, numbers))


@pytest.mark.parametrize(("codec", "words"), [(Fp16(), (0x7C00, 0xFC00, 0x7E00)), (Bf16(), (0x7F80, 0xFF80, 0xFFC0))])
def test_half_precision_that_is_not_finite_is_refused(codec: Codec, words: tuple[int, ...]) -> None:
    for word in words:
        with pytest.raises(LayoutError, match="not finite"):
            codec.reader(struct.pack("<3H", 0, word, 0), 3)
    codec.reader(struct.pack("<3H", 0, words[0] - 1, words[1] - 1), 3)


def oracle_fp8(vector: torch.Tensor, name: str, block: int) -> list[float]:
    """Element by element with Python numbers, and torch's conversion."""
    dtype, limit = FORMATS[name]
    out = []
    for start in range(0, len(vector), block):
        values = vector[start : start + block].tolist()
        largest = max(map(abs, values))
        exponent = -126
        while exponent < 112 and limit * 2.0**exponent < largest:
            exponent += 1
        for value in values:
            scaled = max(-limit, min(limit, value / 2.0**exponent))
            out.append(float(torch.tensor(scaled, dtype=torch.float32).to(dtype).float()) * 2.0**exponent)
    return out


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=60)
@given(numbers=numbers32)
def test_fp8_is_the_formula(name: str, numbers: list[float]) -> None:
    vector = torch.tensor(numbers)
    assert round_trip(Fp8({"format": name, "block": 8}), vector).tolist() == oracle_fp8(vector, name, 8)


@pytest.mark.parametrize(("name", "digits"), [("e4m3", 4), ("e5m2", 3)])
def test_fp8_keeps_its_significant_bits_in_every_block(name: str, digits: int) -> None:
    vector = gaussian(3000)
    vector[256:512] *= 1e-20
    largest = vector.abs().view(-1)[:2816].view(-1, 256).amax(1).repeat_interleave(256)
    error = (round_trip(Fp8({"format": name}), vector) - vector).abs()[:2816]
    bound = torch.maximum(vector[:2816].abs() * 2.0**-digits, largest * 2.0**-14)
    assert (error <= bound).all()


def test_fp8_blocks_of_zeros_beside_others_stay_zero() -> None:
    vector = torch.zeros(600)
    vector[300] = 5.0
    assert round_trip(Fp8(), vector).tolist() == vector.tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_fp8_every_code_is_torchs_number_or_refused(name: str) -> None:
    dtype, _ = FORMATS[name]
    for code in range(256):
        value = float(torch.tensor([code], dtype=torch.uint8).view(dtype).float())
        data = struct.pack("<fB", 0.5, code)
        if math.isfinite(value):
            assert Fp8({"format": name}).reader(data, 1).read(slice(0, 1)).tolist() == [value / 2]
        else:
            with pytest.raises(LayoutError, match="no meaning"):
                Fp8({"format": name}).reader(data, 1)


@pytest.mark.parametrize("scale", [-1.0, 3.0, math.inf, math.nan, 2.0**113, 2.0**-127, -0.0])
def test_fp8_scales_that_no_encoder_makes_are_refused(scale: float) -> None:
    with pytest.raises(LayoutError, match="scale in segment 0"):
        Fp8().reader(struct.pack("<fB", scale, 0), 1)


@pytest.mark.parametrize(
    ("codec", "error"), [(Fp16(), 3e-4), (Bf16(), 2.5e-3), (Fp8(), 3.5e-2), (Fp8({"format": "e5m2"}), 7e-2)]
)
def test_relative_errors_are_what_the_formats_give(codec: Codec, error: float) -> None:
    vector = torch.from_numpy(np.random.default_rng(0).standard_t(4, 200_000).astype(np.float32))
    found = float((round_trip(codec, vector) - vector).norm() / vector.norm())
    assert error / 3 < found < error


def test_values_at_the_edge_of_float32_saturate() -> None:
    vector = torch.tensor([LARGEST, -LARGEST])
    assert round_trip(Fp16(), vector).tolist() == [65504.0, -65504.0]
    assert round_trip(Bf16(), vector).tolist() == [255 * 2.0**120, -255 * 2.0**120]
    assert round_trip(Fp8(), vector).tolist() == [448 * 2.0**112, -448 * 2.0**112]


@pytest.mark.parametrize("block", [0, 7, 24, 1 << 17, -8])
def test_blocks_that_are_no_power_of_two_are_refused(block: int) -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.block.*power of two from 8 to 65536"):
        Fp8({"block": block})


def test_formats_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"e4m3.*e5m2"):
        Fp8({"format": "e3m4"})


def test_sizes() -> None:
    assert [codec.encoded_bytes(1000) for codec in (Fp16(), Bf16(), Fp8(), Fp8({"block": 1024}))] == [
        2000,
        2000,
        1016,
        1004,
    ]
    with pytest.raises(LimitExceeded, match="1016"):
        Fp8().reader(bytes(1017), 1000)
