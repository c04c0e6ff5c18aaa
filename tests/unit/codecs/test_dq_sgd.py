from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.dq_sgd import DQSGD, Budget, DQReader, mean_norm, real_bits
from covey.codecs.none import NoCodec
from covey.codecs.qsgd import QSGD
from covey.errors import LayoutError, LimitExceeded, SpecError
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector

CONTEXT = CodecContext(seed=1, round=1, rounds=20)


class TestDQSGD(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return DQSGD()


class TestDQSGDWithL2Norm(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return DQSGD({"bits": 6.5, "norm": "l2", "bucket": 64})


class TestDQSGDInALaterRound(CodecConformance):
    unbiased = True
    context = CodecContext(
        seed=5, round=4, rounds=9, broadcast=Budget(left=33, norm=2.0, first=3.0, round=3).to_bytes()
    )

    def make(self) -> Codec:
        return DQSGD()


def reader_of(codec: DQSGD, vector: Tensor, context: CodecContext) -> DQReader:
    reader = codec.reader(encoded(codec, TensorVector(vector), context), len(vector))
    assert isinstance(reader, DQReader)
    return reader


def run(codec: DQSGD, norms: list[float], nodes: int = 3, d: int = 600) -> list[list[int]]:
    """The bits of each node in each round of a run in which updates have these sizes."""
    broadcast, found = b"", []
    for number, size in enumerate(norms, 1):
        context = CodecContext(seed=number, round=number, rounds=len(norms), broadcast=broadcast)
        vectors = [gaussian(d, number) * size * (1 + k / 5) for k in range(nodes)]
        readers = [reader_of(codec, vector, context) for vector in vectors]
        found.append([reader.bits for reader in readers])
        broadcast = codec.summary(readers, context)
    return found


@pytest.mark.parametrize("bits", [2.0, 3.0, 4.5, 6.0, 16.0])
@pytest.mark.parametrize("fall", [1.0, 0.95, 0.7, 1.05])
def test_the_median_update_takes_no_more_than_the_budget_and_nearly_all_of_it(bits: float, fall: float) -> None:
    rounds = 30
    found = run(DQSGD({"bits": bits}), [fall**n for n in range(rounds)])
    spent = sum(statistics.median_low(row) for row in found)
    assert spent <= bits * rounds
    assert spent >= 0.95 * bits * rounds


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=15), st.floats(2, 16))
def test_the_budget_holds_whatever_the_norms(norms: list[float], bits: float) -> None:
    found = run(DQSGD({"bits": bits}), norms, nodes=1)
    assert sum(row[0] for row in found) <= bits * len(norms)


def test_bits_follow_the_norm() -> None:
    found = run(DQSGD({"bits": 6}), [0.9**n for n in range(40)])
    medians = [statistics.median_low(row) for row in found]
    assert statistics.mean(medians[5:15]) > statistics.mean(medians[-10:]) + 2
    assert all(row == sorted(row) for row in found)
    assert any(row[0] < row[-1] for row in found)


def test_the_first_round_and_a_run_of_unknown_length_take_the_average() -> None:
    vector = gaussian(100)
    assert reader_of(DQSGD({"bits": 5}), vector, CONTEXT).bits == 5
    unknown = replace(CONTEXT, rounds=0)
    codec = DQSGD({"bits": 5.9})
    reader = reader_of(codec, vector, unknown)
    assert reader.bits == 5
    assert codec.summary([reader], unknown) == b""


def test_bits_are_the_papers_formula_with_the_t_that_spends_what_is_left() -> None:
    """Norms that do not fall: t ||g|| = 2^(b - 1) - 1 with b bits left for each round."""
    budget = Budget(left=50, norm=3.0, first=3.0, round=10)
    t = (2 ** (5 - 1) - 1) / 3.0
    for norm in (0.1, 1.0, 3.0, 7.0, 20.0):
        wanted = math.floor(math.log2(t * norm + 1) + 1 + 0.5)
        assert budget.bits(norm, rounds=20) == min(max(wanted, 2), 16)
    assert float(real_bits(math.log2(t), torch.tensor([math.log2(7.0)]).numpy())[0]) == pytest.approx(
        math.log2(t * 7 + 1) + 1
    )


def test_the_last_rounds_keep_their_least_bits() -> None:
    assert Budget(left=12, norm=1.0, first=1.0, round=5).bits(1e9, rounds=10) == 12 - 2 * 4
    assert Budget(left=0, norm=1.0, first=1.0, round=5).bits(1e9, rounds=10) == 2
    assert Budget(left=90, norm=1.0, first=1.0, round=10).bits(1.0, rounds=10) == 2


@pytest.mark.parametrize("norm", [0.0, 1e-45, 3.4e38])
@pytest.mark.parametrize("own", [0.0, 1e-45, 3.4e38])
def test_norms_at_the_edge_of_float32_give_bits_within_the_limits(norm: float, own: float) -> None:
    for first in (0.0, norm, 3.4e38):
        assert 2 <= Budget(left=60, norm=norm, first=first, round=3).bits(own, rounds=12) <= 16


def test_the_summary_is_the_lower_median_of_bits_and_norms() -> None:
    codec = DQSGD({"bits": 4})
    vectors = [gaussian(700) * size for size in (1, 1e6, 2, 1e6)]
    context = replace(CONTEXT, broadcast=Budget(left=60, norm=1.0, first=2.0, round=3).to_bytes(), round=4)
    readers = [reader_of(codec, vector, context) for vector in vectors]
    budget = Budget.from_bytes(codec.summary(readers, context))
    scales = vectors[2][:512].abs().max(), vectors[2][512:].abs().max()
    assert budget.norm == pytest.approx(math.sqrt((scales[0] ** 2 + scales[1] ** 2) / 2), rel=1e-6)
    assert budget.left == 60 - statistics.median_low(reader.bits for reader in readers)
    assert (budget.first, budget.round) == (2.0, 4)


def test_the_summary_of_nothing_is_what_was_known() -> None:
    context = replace(CONTEXT, broadcast=Budget(1, 1.0, 1.0, 1).to_bytes())
    assert DQSGD().summary([], context) == context.broadcast
    assert DQSGD().summary([NoCodec().reader(bytes(4), 1)], context) == context.broadcast


def test_a_message_is_its_bits_and_then_what_qsgd_makes() -> None:
    vector = gaussian(1000)
    data = encoded(DQSGD({"bits": 6}), TensorVector(vector), CONTEXT)
    assert data == bytes([6, 0, 0, 0]) + encoded(QSGD({"bits": 6}), TensorVector(vector), CONTEXT)
    assert len(data) == DQSGD().message_bytes(1000, 6)
    assert torch.equal(decoded(DQSGD(), data, 1000), decoded(QSGD({"bits": 6}), data[4:], 1000))


def test_messages_that_say_impossible_bits_are_refused() -> None:
    for bits in (0, 1, 17, 255):
        with pytest.raises(LayoutError, match=f"{bits} bits"):
            DQSGD().reader(bytes([bits, 0, 0, 0]) + bytes(20), 8)
    with pytest.raises(LayoutError, match="begins with"):
        DQSGD().reader(bytes([4, 0, 1, 0]) + bytes(8), 8)
    with pytest.raises(LayoutError, match="begins with"):
        DQSGD().reader(b"\4", 8)
    with pytest.raises(LayoutError, match="8 elements of 5 bits take 13"):
        DQSGD().reader(bytes([5, 0, 0, 0]) + bytes(8), 8)
    with pytest.raises(LimitExceeded, match="at most 24"):
        DQSGD().reader(bytes([4, 0, 0, 0]) + bytes(21), 8)


@pytest.mark.parametrize(
    "data", [b"x", bytes(16), Budget(1, math.nan, 1.0, 1).to_bytes(), Budget(1, -1.0, 1.0, 1).to_bytes()]
)
def test_a_broadcast_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(LayoutError, match="budget"):
        encoded(DQSGD(), TensorVector(gaussian(10)), replace(CONTEXT, round=2, broadcast=data))


def test_the_mean_norm_of_the_largest_numbers_is_a_float32() -> None:
    largest = torch.full((5,), torch.finfo(torch.float32).max).numpy()
    assert mean_norm(largest) == float(largest[0])
    assert mean_norm(largest[:0]) == 0.0


def test_a_run_with_fewer_bits_than_two_is_refused() -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.bits"):
        DQSGD({"bits": 1.5})
