from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.sign import Sign
from covey.codecs.sto_sign import LEAST_BOUND, StoSign
from covey.errors import LayoutError, SpecError, TaskError
from covey.layout import Layout, TensorSpec
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

CONTEXT = CodecContext(seed=1, round=1)
LAYOUT = Layout((TensorSpec("a", "float32", (300,)), TensorSpec("b", "float32", (20, 5))))
SEEDS = 2000


class TestBroadcast(CodecConformance):
    def make(self) -> Codec:
        return StoSign()


class TestFixed(CodecConformance):
    def make(self) -> Codec:
        return StoSign({"bound": 0.5})


def mean_sign(codec: Codec, vector: Tensor, context: CodecContext) -> Tensor:
    source, total = TensorVector(vector), torch.zeros(len(vector), dtype=torch.float64)
    for seed in range(SEEDS):
        data = encoded(codec, source, replace(context, seed=seed))
        total += decoded(codec, data, len(vector), context.layout)
    return total / SEEDS


def require_mean(found: Tensor, wanted: Tensor) -> None:
    error = (found - wanted).abs()
    # The standard error of a mean of SEEDS signs is at most SEEDS ** -0.5.
    assert error.max() <= 5 * SEEDS**-0.5
    assert error.square().mean() <= 1.3 / SEEDS
    assert torch.corrcoef(torch.stack([found, wanted]))[0, 1] > 0.98


def test_the_mean_sign_is_the_element_over_its_own_tensors_bound() -> None:
    vector = torch.cat([torch.linspace(-2, 2, 300), torch.linspace(-50, 30, 100)])
    bounds = torch.cat([torch.full((300,), 2.0), torch.full((100,), 50.0)])
    require_mean(mean_sign(StoSign(), vector, replace(CONTEXT, layout=LAYOUT)), (vector / bounds).double())


def test_the_mean_sign_follows_the_broadcast_and_larger_elements_are_certain() -> None:
    vector = torch.cat([torch.linspace(-2, 2, 300), torch.linspace(-50, 30, 100)])
    bounds = torch.cat([torch.full((300,), 1.0), torch.full((100,), 100.0)])
    context = replace(CONTEXT, layout=LAYOUT, broadcast=struct.pack("<2f", 1.0, 100.0))
    found = mean_sign(StoSign(), vector, context)
    require_mean(found, (vector / bounds).clamp(-1, 1).double())
    beyond = vector.abs() >= bounds
    assert torch.equal(found[beyond], vector[beyond].sign().double())


def test_the_mean_sign_is_the_element_over_a_fixed_bound() -> None:
    vector = torch.linspace(-0.1, 0.1, 200)
    require_mean(mean_sign(StoSign({"bound": 0.1}), vector, CONTEXT), vector.double() / 0.1)


def test_sizes_are_exact() -> None:
    assert StoSign({"bound": 0.1}).encoded_bytes(400, LAYOUT) == 50
    assert StoSign().encoded_bytes(400, LAYOUT) == 8 + 50
    assert StoSign().encoded_bytes(401) == 4 + 51


def test_the_head_has_the_nodes_own_magnitudes_whatever_the_broadcast() -> None:
    vector = torch.cat([torch.linspace(-2, 1, 300), torch.linspace(-3, 30, 100)])
    context = replace(CONTEXT, layout=LAYOUT, broadcast=struct.pack("<2f", 7.0, 8.0))
    assert encoded(StoSign(), TensorVector(vector), context)[:8] == struct.pack("<2f", 2.0, 30.0)


@pytest.mark.parametrize(("trim", "wanted"), [(0, (9.0, 40.0)), (1, (5.0, 30.0)), (2, (2.0, 20.0)), (9, (2.0, 20.0))])
def test_the_summary_is_the_largest_magnitude_but_for_those_trimmed(trim: int, wanted: tuple[float, float]) -> None:
    codec = StoSign({"trim": trim})
    heads = [(9.0, 20.0), (2.0, 40.0), (5.0, 30.0)]
    readers = [codec.reader(struct.pack("<2f", *head) + bytes(50), 400, LAYOUT) for head in heads]
    assert codec.summary(readers, CONTEXT) == struct.pack("<2f", *wanted)


def test_the_summary_has_a_least_bound_and_is_empty_where_none_is_needed() -> None:
    reader = StoSign().reader(bytes(5), 8)
    assert StoSign().summary([reader], CONTEXT) == np.float32(LEAST_BOUND).tobytes()
    assert StoSign().summary([], CONTEXT) == b""
    fixed = StoSign({"bound": 1})
    assert fixed.summary([fixed.reader(bytes(1), 8)], CONTEXT) == b""


def test_zeros_are_fair_coins() -> None:
    data = encoded(StoSign(), TensorVector(torch.zeros(100_000)), CONTEXT)
    assert abs(decoded(StoSign(), data, 100_000).mean()) < 5 * 100_000**-0.5


def test_a_vote_travels_down_as_plain_signs() -> None:
    assert isinstance(StoSign().downlink(), Sign)


@pytest.mark.parametrize("broadcast", [b"abc", bytes(12), struct.pack("<2f", 1, float("inf"))])
def test_a_broadcast_of_another_form_is_refused(broadcast: bytes) -> None:
    with pytest.raises(LayoutError):
        encoded(StoSign(), TensorVector(gaussian(400)), replace(CONTEXT, layout=LAYOUT, broadcast=broadcast))


@pytest.mark.parametrize("magnitude", [float("nan"), float("inf"), -1.0, -0.0])
def test_a_magnitude_that_is_none_is_refused(magnitude: float) -> None:
    with pytest.raises(LayoutError, match="magnitude"):
        StoSign().reader(struct.pack("<f", magnitude) + b"\0", 3)


@pytest.mark.parametrize("bound", [0, -1.0, "max", True])
def test_a_wrong_bound_is_refused_by_name(bound: object) -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.bound"):
        StoSign({"bound": bound})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_encoded(value: float) -> None:
    for codec in (StoSign(), StoSign({"bound": 1})):
        with pytest.raises(TaskError, match="not finite"):
            encoded(codec, TensorVector(torch.tensor([1.0, value, 2.0])), CONTEXT)
