from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation import votes
from covey.aggregation.matrix import Row, UpdateMatrix
from covey.aggregation.votes import agreeing, compare, count, majority, random_words, totals, unpacked, words_of
from covey.errors import LayoutError
from covey.vectors import PackedSigns


def rows_of(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.randint(-1, 2, (n, d), generator=torch.Generator().manual_seed(seed)).float()


def bits_of(words: np.ndarray, d: int) -> np.ndarray:
    found = unpacked(words.view(np.uint8))
    assert not found[d:].any()
    return found[:d]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 300))
def test_counting_on_words_equals_counting(seed: int, n: int, d: int) -> None:
    rows = rows_of(seed, n, d)
    words = words_of(UpdateMatrix.of(rows), slice(0, d))
    planes = count(words)
    assert len(planes) == n.bit_length()
    positive = (rows >= 0).sum(0)
    assert torch.equal(totals(planes, d), positive.float())
    for threshold in {0, 1, n // 2, n - 1, n, 2 * n + 1}:
        greater, equal = compare(planes, threshold)
        assert np.array_equal(unpacked(greater.view(np.uint8))[:d], (positive > threshold).numpy())
        assert np.array_equal(unpacked(equal.view(np.uint8))[:d], (positive == threshold).numpy())


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 300), st.integers(0, 2**63))
def test_majority_equals_the_sign_of_the_sum(seed: int, n: int, d: int, key: int) -> None:
    rows = rows_of(seed, n, d)
    words = words_of(UpdateMatrix.of(rows), slice(0, d))
    ties = random_words(key, 0, words.shape[1])
    margin = 2 * (rows >= 0).sum(0) - n
    for_positive = torch.from_numpy(unpacked(ties.view(np.uint8))[:d]) > 0
    expected = (margin > 0) | ((margin == 0) & for_positive)
    result = majority(words, ties)
    assert np.array_equal(bits_of(result, d), expected.numpy())
    same = ((rows >= 0) == expected).sum(1)
    assert agreeing(words, result, d).tolist() == same.tolist()


def test_packed_rows_are_read_as_they_are() -> None:
    d = 203
    packed = [np.packbits((row >= 0).numpy(), bitorder="little") for row in rows_of(1, 5, d)]
    rows = [Row(f"n{i}", 0.2, PackedSigns(torch.from_numpy(bits), d)) for i, bits in enumerate(packed)]
    words = words_of(UpdateMatrix(rows), slice(64, d))
    assert np.array_equal(words.view(np.uint8)[:, : -(-(d - 64) // 8)], np.stack(packed)[:, 8:])
    assert words.dtype == np.uint64


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(0, 10**6), st.integers(1, 200))
def test_packed_signs_are_a_direction(data: st.DataObject, seed: int, d: int) -> None:
    positive = rows_of(seed, 1, d)[0] >= 0
    direction = PackedSigns(torch.from_numpy(np.packbits(positive.numpy(), bitorder="little")), d)
    start = data.draw(st.integers(0, d))
    stop = data.draw(st.integers(start, d))
    signs = torch.where(positive, 1.0, -1.0)
    assert torch.equal(direction.read(slice(start, stop)), signs[start:stop])
    assert torch.equal(direction.dense(7), signs)
    start -= start % 8
    packed = direction.signs(slice(start, stop))
    assert np.array_equal(packed.numpy(), np.packbits(positive[start:stop].numpy(), bitorder="little"))


def test_packed_signs_of_another_form_are_refused() -> None:
    with pytest.raises(LayoutError, match="9 packed signs are 2 bytes"):
        PackedSigns(torch.zeros(1, dtype=torch.uint8), 9)
    with pytest.raises(LayoutError, match="multiple of 8"):
        PackedSigns(torch.zeros(2, dtype=torch.uint8), 9).signs(slice(3, 9))


def test_random_words_are_splitmix64_and_depend_on_their_place_only() -> None:
    # The first outputs of SplitMix64 seeded with 0 and with 1234567, as published with its code.
    assert int(random_words(0, 0, 1)[0]) == 0xE220A8397B1DCDAF
    assert random_words(1234567, 0, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert np.array_equal(random_words(2**63 - 1, 0, 90)[37:], random_words(2**63 - 1, 37, 53))


def test_random_bits_are_even_in_every_place() -> None:
    bits = unpacked(random_words(9, 0, 20_000).view(np.uint8)).reshape(-1, 64)
    # Five standard deviations of the mean of 20,000 fair bits.
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 20_000**0.5


def test_blocks_begin_with_a_word() -> None:
    assert votes.VOTE_COLUMNS % votes.WORD == 0
    assert all(columns.start % votes.WORD == 0 for columns in votes.vote_blocks(3 * votes.VOTE_COLUMNS + 5))
