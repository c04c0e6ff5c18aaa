from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.integers import Int4, Int8
from covey.errors import LayoutError, SpecError, TaskError
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

CONTEXT = CodecContext(seed=1, round=1)


class TestInt8(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Int8()


class TestInt4(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Int4()


class TestInt4InSmallBlocks(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Int4({"block": 8})


def oracle(vector: torch.Tensor, bits: int, block: int) -> tuple[list[int], list[float]]:
    """Codes and decoded values, element by element, in float32."""
    levels = np.float32(2 ** (bits - 1) - 1)
    codes, values = [], []
    for start in range(0, len(vector), block):
        part = vector[start : start + block].numpy()
        scale = np.abs(part).max()
        for x in part:
            q = np.rint(x / scale * levels) if scale else np.float32(0)
            codes.append(int(q) + int(levels))
            values.append(float(q / levels * scale))
    return codes, values


@pytest.mark.parametrize(("codec", "bits", "block"), [(Int8({"block": 16}), 8, 16), (Int4({"block": 8}), 4, 8)])
@settings(deadline=None, max_examples=60)
@given(numbers=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
def test_bytes_and_values_are_the_formula(codec: Codec, bits: int, block: int, numbers: list[float]) -> None:
    vector = torch.tensor(numbers)
    codes, values = oracle(vector, bits, block)
    data = encoded(codec, TensorVector(vector), CONTEXT)
    whole = sum(code << i * bits for i, code in enumerate(codes))
    scales = [float(vector[i : i + block].abs().max()) for i in range(0, len(vector), block)]
    packed = whole.to_bytes(-(-len(codes) * bits // 8), "little")
    assert data == struct.pack(f"<{len(scales)}f", *scales) + packed
    assert decoded(codec, data, len(vector)).tolist() == values


@pytest.mark.parametrize(("codec", "levels", "block"), [(Int8(), 127, 256), (Int4(), 7, 64)])
def test_error_is_at_most_half_a_step(codec: Codec, levels: int, block: int) -> None:
    vector = gaussian(block * 40)
    error = (decoded(codec, encoded(codec, TensorVector(vector), CONTEXT), len(vector)) - vector).abs()
    scales = vector.abs().view(-1, block).amax(1).repeat_interleave(block)
    assert (error <= scales / levels / 2 * (1 + 1e-5)).all()


def test_the_largest_value_of_a_block_comes_back_exactly() -> None:
    vector = gaussian(256 * 30)
    found = decoded(Int8(), encoded(Int8(), TensorVector(vector), CONTEXT), len(vector))
    at = vector.view(-1, 256).abs().argmax(1, keepdim=True)
    assert torch.equal(found.view(-1, 256).gather(1, at), vector.view(-1, 256).gather(1, at))


@pytest.mark.parametrize(
    ("codec", "error"),
    [
        (Int8({"block": 64}), 0.013),
        (Int8({"block": 256}), 0.020),
        (Int8({"block": 2048}), 0.037),
        (Int4({"block": 64}), 0.18),
        (Int4({"block": 256}), 0.27),
        (Int4({"block": 2048}), 0.41),
    ],
)
def test_relative_errors_on_heavy_tails(codec: Codec, error: float) -> None:
    """Of a heavy-tailed vector: within a factor of two of values measured elsewhere on another such vector."""
    vector = torch.from_numpy(np.random.default_rng(0).standard_t(3, 300_000).astype(np.float32))
    found = decoded(codec, encoded(codec, TensorVector(vector), CONTEXT), len(vector))
    assert error / 2 < float((found - vector).norm() / vector.norm()) < 2 * error


def test_a_code_without_meaning_is_refused() -> None:
    with pytest.raises(LayoutError, match="int8: a code in segment 0 has no meaning"):
        Int8().reader(struct.pack("<fB", 1.0, 255), 1)
    with pytest.raises(LayoutError, match="int4: a code"):
        Int4().reader(struct.pack("<fB", 1.0, 0xF7), 2)


def test_padding_that_is_not_zero_is_refused() -> None:
    with pytest.raises(LayoutError, match="behind the last code"):
        Int4().reader(struct.pack("<fB", 1.0, 0x17), 1)


@pytest.mark.parametrize("scale", [-1.0, -0.0, float("inf"), float("nan")])
def test_scales_that_are_no_magnitudes_are_refused(scale: float) -> None:
    with pytest.raises(LayoutError, match="scale in segment 0"):
        Int8().reader(struct.pack("<fB", scale, 127), 1)


def test_a_fault_in_a_later_segment_is_found() -> None:
    d = (1 << 16) + 5
    data = bytearray(encoded(Int8(), TensorVector(gaussian(d)), CONTEXT))
    data[-1] = 255
    with pytest.raises(LayoutError, match="segment 1"):
        Int8().reader(data, d)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_even_of_a_careless_source(value: float) -> None:
    vector = torch.ones(1000)
    vector[999] = value
    with pytest.raises(TaskError, match="not finite"):
        encoded(Int8(), TensorVector(vector), CONTEXT)


def test_sizes() -> None:
    assert Int8().encoded_bytes(1000) == 1000 + 4 * 4
    assert Int4().encoded_bytes(1001) == 501 + 4 * 16
    assert Int8().encoded_bytes(3 << 16) == (3 << 16) + 4 * 3 * 256


@pytest.mark.parametrize("codec", [Int8, Int4])
def test_options_are_refused_by_name(codec: type[Codec]) -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.block"):
        codec({"block": 100})
    with pytest.raises(SpecError, match="known keys: block"):
        codec({"bits": 8})
