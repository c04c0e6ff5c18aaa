from __future__ import annotations

import struct
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.sign import Sign
from covey.errors import LayoutError, LimitExceeded, TaskError
from covey.testing.codecs import CodecConformance, decoded, encoded
from covey.vectors import PackedSigns, TensorVector

CONTEXT = CodecContext(seed=1, round=1)
NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=100)


class TestConformance(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return Sign()


@settings(deadline=None)
@given(NUMBERS)
def test_format_is_the_scale_and_one_bit_an_element(numbers: list[float]) -> None:
    data = encoded(Sign(), TensorVector(torch.tensor(numbers, dtype=torch.float32)), CONTEXT)
    bits = sum(1 << i for i, x in enumerate(numbers) if x >= 0)
    scale = max((abs(x) for x in numbers), default=0.0)
    assert data == struct.pack("<f", scale) + bits.to_bytes(-(-len(numbers) // 8), "little")


def test_zero_counts_as_positive_with_either_sign() -> None:
    data = encoded(Sign(), TensorVector(torch.tensor([0.0, -0.0, -1.0])), CONTEXT)
    assert decoded(Sign(), data, 3).tolist() == [1.0, 1.0, -1.0]


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0, 2.0**100, width=32), st.randoms())
def test_a_vector_of_one_magnitude_comes_back_exactly(d: int, c: float, random: Random) -> None:
    vector = torch.tensor([random.choice((c, -c)) for _ in range(d)])
    assert torch.equal(decoded(Sign(), encoded(Sign(), TensorVector(vector), CONTEXT), d), vector)


@settings(deadline=None)
@given(st.integers(0, 300), st.data())
def test_packed_signs_of_any_block_are_those_of_the_values(d: int, data: st.DataObject) -> None:
    bits = np.random.default_rng(d).integers(0, 2, d)
    reader = PackedSigns(torch.from_numpy(np.packbits(bits, bitorder="little")), d)
    start = data.draw(st.integers(0, d // 8)) * 8
    stop = data.draw(st.integers(start, d))
    assert reader.signs(slice(start, stop)).tolist() == np.packbits(bits[start:stop], bitorder="little").tolist()
    assert reader.read(slice(start, stop)).tolist() == (bits[start:stop] * 2.0 - 1).tolist()


def test_packed_signs_are_a_view_and_stay_as_they_are() -> None:
    packed = torch.full((2,), 255, dtype=torch.uint8)
    reader = PackedSigns(packed, 16)
    assert reader.signs(slice(8, 16)).data_ptr() == packed.data_ptr() + 1
    assert reader.signs(slice(0, 3)).tolist() == [7]
    assert packed.tolist() == [255, 255]


def test_decoding_into_memory_with_gaps() -> None:
    data = encoded(Sign(), TensorVector(torch.tensor([1.0, -1.0] * 8)), CONTEXT)
    out = torch.zeros(32)[::2]
    Sign().reader(data, 16).read(slice(0, 16), out)
    assert out.tolist() == [1.0, -1.0] * 8


def test_a_set_bit_behind_the_last_sign_is_refused() -> None:
    with pytest.raises(LayoutError, match="behind"):
        Sign().reader(struct.pack("<f", 1) + b"\x08", 3)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, -0.0])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(LayoutError, match="scale"):
        Sign().reader(struct.pack("<f", scale) + b"\0", 3)


def test_wrong_lengths_name_the_right_one() -> None:
    with pytest.raises(LimitExceeded, match=r"6 bytes .* takes 5"):
        Sign().reader(bytes(6), 8)
    with pytest.raises(LayoutError, match=r"4 bytes .* takes 5"):
        Sign().reader(bytes(4), 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_encoded(value: float) -> None:
    for codec in (Sign(),):
        with pytest.raises(TaskError, match="not finite"):
            encoded(codec, TensorVector(torch.tensor([1.0, value, 2.0])), CONTEXT)
