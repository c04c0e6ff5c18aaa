from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from torch import Tensor

from covey.codecs import threshold as selection
from covey.codecs.contract import Codec, CodecContext
from covey.codecs.sparse import RandomK, TopK
from covey.codecs.threshold import Cut, Selector, cut
from covey.errors import LayoutError, LimitExceeded, SpecError, TaskError
from covey.testing.codecs import CodecConformance, decoded, encoded, gaussian
from covey.vectors import TensorVector, spans

CONTEXT = CodecContext(seed=1, round=1)


class TestTopK(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return TopK({"fraction": 0.1})


class TestCodedTopK(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return TopK({"fraction": 0.1, "indices": "elias-fano"})


class TestCodedTopKOfTwoBits(CodecConformance):
    def make(self) -> Codec:
        return TopK({"fraction": 0.03, "indices": "elias-fano", "value_bits": 2})


class TestRandomK(CodecConformance):
    idempotent = True

    def make(self) -> Codec:
        return RandomK({"fraction": 0.1})


class TestUnbiasedRandomK(CodecConformance):
    unbiased = True

    def make(self) -> Codec:
        return RandomK({"fraction": 0.25, "unbiased": True})


def sent(codec: Codec, vector: Tensor, seed: int = 1) -> Tensor:
    data = encoded(codec, TensorVector(vector), replace(CONTEXT, seed=seed))
    return decoded(codec, data, len(vector))


def largest(vector: Tensor, k: int) -> Tensor:
    """The k largest by a stable sort, an oracle."""
    kept = np.argsort(-vector.abs().double().numpy(), kind="stable")[:k]
    out = torch.zeros(len(vector))
    out[kept] = vector[kept]
    return out


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=80), st.data())
def test_top_k_is_the_k_largest_of_a_stable_sort(numbers: list[float], data: st.DataObject) -> None:
    vector = torch.tensor(numbers, dtype=torch.float32)
    k = data.draw(st.integers(1, len(numbers)))
    assert torch.equal(sent(TopK({"k": k}), vector), largest(vector, k))


@pytest.mark.parametrize("d", [300_000, 600_000])
def test_top_k_over_several_blocks_with_many_ties(d: int) -> None:
    generator = torch.Generator().manual_seed(2)
    vector = torch.randint(-3, 4, (d,), generator=generator).float()
    for k in (1, d // 5, d // 2, d):
        assert torch.equal(sent(TopK({"k": k}), vector), largest(vector, k))
    smooth = torch.randn(d, generator=generator)
    assert torch.equal(sent(TopK(), smooth), largest(smooth, d // 100))


def test_top_k_format() -> None:
    data = encoded(TopK({"k": 2}), TensorVector(torch.tensor([1.0, -5.0, 0.0, 2.5])), CONTEXT)
    assert data == struct.pack("<ifif", 1, -5.0, 3, 2.5)


CODED = {"indices": "elias-fano"}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(0, 10**6), st.data())
def test_coded_pairs_decode_to_what_plain_ones_do(d: int, seed: int, data: st.DataObject) -> None:
    k, p = data.draw(st.integers(1, d)), gaussian(d, seed)
    assert torch.equal(sent(TopK({"k": k, **CODED}), p), sent(TopK({"k": k}), p))
    two = sent(TopK({"k": k, **CODED, "value_bits": 2}), p)
    kept = sent(TopK({"k": k}), p)
    assert torch.equal(two.sign(), kept.sign())
    assert (p - two).double().square().sum() <= p.double().square().sum() * (1 + 1e-6)
    assert len(two[two != 0].abs().unique()) <= 2


@pytest.mark.parametrize("place", ["even", "crowded", "all"])
def test_coded_pairs_over_several_segments(place: str) -> None:
    d = (1 << 18) + (1 << 16) + 77
    p = torch.randn(d, generator=torch.Generator().manual_seed(2))
    if place == "crowded":
        p[70_000:] *= 1e-6
    for k in (1, d // 300, d // 3) if place != "all" else (d,):
        codec = TopK({"k": k, **CODED})
        data = encoded(codec, TensorVector(p), CONTEXT)
        assert len(data) <= codec.encoded_bytes(d)
        assert torch.equal(decoded(codec, data, d), largest(p, k))


@pytest.mark.parametrize(("fraction", "plain", "coded", "two"), [(0.01, 64, 41.1, 11.1), (0.1, 64, 37.4, 7.4)])
def test_bits_a_pair(fraction: float, plain: float, coded: float, two: float) -> None:
    """With Rice's code of the gaps an index would take 8.1 and 4.9 bits: 1 to 7 % of the message less."""
    p = torch.randn(1_000_000, generator=torch.Generator().manual_seed(3))
    forms: list[dict[str, JsonValue]] = [{}, {**CODED}, {**CODED, "value_bits": 2}]
    sizes = [len(encoded(TopK({"fraction": fraction, **form}), TensorVector(p), CONTEXT)) for form in forms]
    bits = [8 * size / (1_000_000 * fraction) for size in sizes]
    assert bits[0] == plain
    assert bits[1] <= coded
    assert bits[2] <= two


def test_coded_format() -> None:
    # 2 of 4 elements at 1 and 3: l = 1, lower bits 1, 1; upper parts 0 and 1, so bits 0 and 2 of (3 >> 1) + 2.
    vector = TensorVector(torch.tensor([1.0, -5.0, 0.0, 2.5]))
    data = encoded(TopK({"k": 2, **CODED}), vector, CONTEXT)
    assert data == struct.pack("<IBBff", 2, 0b11, 0b101, -5.0, 2.5)
    # Magnitudes 5 and 2.5: codes 3 (negative, above their mean) and 0.
    two = encoded(TopK({"k": 2, **CODED, "value_bits": 2}), vector, CONTEXT)
    assert two == struct.pack("<IBBffB", 2, 0b11, 0b101, 2.5, 5.0, 0b0011)


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        (struct.pack("<IBBff", 3, 0b11, 0b101, -5.0, 2.5), LayoutError, "counts"),
        (struct.pack("<IBBff", 2, 0b11, 0b100, -5.0, 2.5), LayoutError, "1 indices, and 2 values"),
        (struct.pack("<IBBff", 2, 0b11, 0b011, -5.0, 2.5), LayoutError, "do not increase"),
        (struct.pack("<IBBff", 2, 0b111, 0b101, -5.0, 2.5), LayoutError, "behind the last code"),
        (struct.pack("<IBBff", 2, 0b11, 0b100101, -5.0, 2.5), LayoutError, "behind the last code"),
        (struct.pack("<IBBff", 2, 0b11, 0b101, -5.0, float("inf")), LayoutError, "not finite"),
        (struct.pack("<IBBf", 2, 0b11, 0b101, -5.0), LayoutError, "too few"),
        (struct.pack("<IBBfff", 2, 0b11, 0b101, -5.0, 2.5, 1.0), LimitExceeded, "bytes for 2 of 4 elements"),
        (b"\x02", LayoutError, "too few for the counts"),
    ],
)
def test_coded_pairs_of_another_form_are_refused(message: bytes, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        TopK({"k": 2, **CODED}).reader(message, 4)


@pytest.mark.parametrize("levels", [(5.0, 2.5), (-0.0, 2.5), (1.0, float("nan"))])
def test_magnitudes_out_of_order_are_refused(levels: tuple[float, float]) -> None:
    data = struct.pack("<IBBffB", 2, 0b11, 0b101, *levels, 0b0011)
    with pytest.raises(LayoutError, match="not in order, or not finite"):
        TopK({"k": 2, **CODED, "value_bits": 2}).reader(data, 4)


def test_two_bits_need_the_coded_form() -> None:
    with pytest.raises(SpecError, match=r"value_bits: .*elias-fano"):
        TopK({"k": 2, "value_bits": 2})


def test_ties_go_to_the_lowest_index() -> None:
    assert sent(TopK({"k": 2}), torch.tensor([1.0, -2.0, 2.0, -2.0])).tolist() == [0.0, -2.0, 2.0, 0.0]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000), st.data())
def test_top_k_is_a_contraction(d: int, seed: int, data: st.DataObject) -> None:
    k, p = data.draw(st.integers(1, d)), gaussian(d, seed)
    lost = (p - sent(TopK({"k": k}), p)).double().square().sum()
    assert lost <= (1 - k / d) * p.double().square().sum() * (1 + 1e-12)


def test_random_k_is_a_contraction_in_the_mean_and_each_element_is_as_likely() -> None:
    d, k, seeds = 60, 13, 2000
    p = gaussian(d)
    rows = torch.stack([sent(RandomK({"k": k}), p, seed) for seed in range(seeds)])
    chosen = rows != 0
    assert (chosen.sum(1) == k).all()
    assert torch.equal(rows[chosen], p.expand(seeds, d)[chosen])
    share, spread = k / d, (k / d * (1 - k / d) / seeds) ** 0.5
    assert (chosen.double().mean(0) - share).abs().max() < 5 * spread
    lost = (p - rows).double().square().sum(1).mean() / p.double().square().sum()
    assert lost.item() == pytest.approx(1 - share, abs=0.02)


def test_pairs_of_random_k_are_as_likely_as_any_other() -> None:
    d, k, seeds = 20, 6, 2000
    ones = torch.ones(d)
    chosen = torch.stack([sent(RandomK({"k": k}), ones, seed * 2**31 + seed) for seed in range(seeds)]).double()
    together = (chosen.T @ chosen / seeds)[~torch.eye(d, dtype=torch.bool)]
    wanted = k * (k - 1) / (d * (d - 1))
    assert (together - wanted).abs().max() < 6 * (wanted * (1 - wanted) / seeds) ** 0.5


def naive_positions(seed: int, d: int, k: int) -> list[int]:
    """Random-k's positions with Python's own integers, element by element."""
    low, high = seed % 2**32, seed >> 32

    def key(i: int) -> int:
        x = (i + low) * (high | 1) % 2**32
        x ^= x >> 16
        x = x * 0x85EBCA6B % 2**32
        x ^= x >> 13
        x = x * 0xC2B2AE35 % 2**32
        return (x ^ x >> 16) >> 1

    return sorted(sorted(range(d), key=lambda i: (-key(i), i))[:k])


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(1, 300), st.data())
def test_random_ks_positions_are_those_of_the_format(seed: int, d: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, d))
    vector = torch.arange(1.0, d + 1)
    message = encoded(RandomK({"k": k}), TensorVector(vector), replace(CONTEXT, seed=seed))
    positions = naive_positions(seed, d, k)
    assert message == struct.pack(f"<Q{k}f", seed, *(vector[i] for i in positions))
    assert decoded(RandomK({"k": k}), message, d).nonzero().flatten().tolist() == positions


def test_random_k_over_several_blocks_reads_back_in_any_blocks() -> None:
    d = 300_001
    vector = torch.arange(1.0, d + 1)
    reader = RandomK().reader(encoded(RandomK(), TensorVector(vector), CONTEXT), d)
    whole = torch.cat([reader.read(columns).clone() for columns in spans(d, 77_777)])
    positions = whole.nonzero().flatten()
    assert positions.tolist() == naive_positions(1, d, 3000)
    assert torch.equal(whole[positions], vector[positions])


def test_how_many_travel() -> None:
    assert TopK().encoded_bytes(1000) == 8 * 10
    assert TopK({"fraction": 0.07}).encoded_bytes(100) == 8 * 7
    assert TopK({"k": 50}).encoded_bytes(20) == 8 * 20
    assert TopK().encoded_bytes(1) == 8
    assert TopK().encoded_bytes(0) == 0
    assert RandomK({"k": 5}).encoded_bytes(20) == 8 + 4 * 5


def test_feedback_goes_with_what_is_lost() -> None:
    assert TopK().feedback
    assert RandomK().feedback
    assert not RandomK({"unbiased": True}).feedback
    assert RandomK.feedback


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((3, 1.0, 3, 2.0), "increase"),
        ((3, 1.0, 2, 2.0), "increase"),
        ((-1, 1.0, 2, 2.0), "increase"),
        ((3, 1.0, 10, 2.0), "index 10 is not one of 10"),
        ((3, 1.0, 4, float("nan")), "not finite"),
        ((3, float("-inf"), 4, 1.0), "not finite"),
    ],
)
def test_top_k_messages_that_are_none_are_refused(pairs: tuple[float, ...], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        TopK({"k": 2}).reader(struct.pack("<ifif", *pairs), 10)


def test_indices_must_increase_from_block_to_block_too() -> None:
    count = (1 << 18) + 1
    pairs = np.zeros(count, [("index", "<i4"), ("value", "<f4")])
    pairs["index"] = np.arange(count)
    TopK({"k": count}).reader(pairs.tobytes(), count)
    pairs["index"][-1] = count - 2
    with pytest.raises(LayoutError, match="increase"):
        TopK({"k": count}).reader(pairs.tobytes(), count)


def test_random_k_messages_that_are_none_are_refused() -> None:
    with pytest.raises(LayoutError, match="not finite"):
        RandomK({"k": 2}).reader(struct.pack("<Q2f", 1, 1.0, float("inf")), 10)
    with pytest.raises(LimitExceeded, match="20 bytes for 2 of 10 elements, which takes 16"):
        RandomK({"k": 2}).reader(bytes(20), 10)


@pytest.mark.parametrize("cls", [TopK, RandomK])
def test_wrong_options_are_refused_by_name(cls: type[Codec]) -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.k: give k or fraction"):
        cls({"k": 3, "fraction": 0.1})
    with pytest.raises(SpecError, match=r"exchange\.options\.fraction"):
        cls({"fraction": 1.5})
    with pytest.raises(SpecError, match=r"exchange\.options\.k"):
        cls({"k": 0})


def test_more_elements_than_an_index_can_name_are_refused() -> None:
    with pytest.raises(LayoutError, match="too many"):
        TopK().encoded_bytes(2**31)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 2**31 - 1) | st.sampled_from([5, 65536, 65541]), min_size=1, max_size=60), st.data())
def test_a_cut_selects_the_largest_keys_in_blocks_of_any_width(numbers: list[int], data: st.DataObject) -> None:
    keys, d = np.array(numbers, np.int32), len(numbers)
    k, width = data.draw(st.integers(1, d)), data.draw(st.integers(1, d))
    found = cut(lambda columns: keys[columns], d, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK_ELEMENTS", max(1, d // 3))
        assert cut(lambda columns: keys[columns], d, k) == found
    selector, positions = Selector(found), []
    for columns in spans(d, width):
        positions += [int(p) + columns.start for p in selector.next(keys[columns])]
    assert positions == sorted(sorted(range(d), key=lambda i: (-numbers[i], i))[:k])
    assert selector.left == Cut(found.key, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("codec", [TopK(), RandomK()], ids=lambda c: type(c).__name__)
def test_a_value_that_is_not_finite_is_not_encoded(codec: Codec, value: float) -> None:
    with pytest.raises(TaskError, match="not finite"):
        sent(codec, torch.tensor([1.0, value, 2.0]))
