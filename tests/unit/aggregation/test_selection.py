from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.directions import BlockRule
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.order_statistics import NarrowBlocks, mean, mean_of_ranks, network, pruned, select, sorting_pairs


def slab(seed: int, n: int, b: int = 33, ties: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return torch.randint(-2, 3, (n, b), generator=generator).float()
    return torch.randn(n, b, generator=generator) * 10.0 ** torch.randint(-30, 30, (n, b), generator=generator)


@pytest.mark.parametrize("n", range(1, 15))
def test_every_pattern_of_zeros_and_ones_is_sorted(n: int) -> None:
    # By the zero-one principle (Knuth, 5.3.4, theorem Z) the network then sorts anything.
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n))).T.contiguous()
    found = select(patterns.clone(), network(n, frozenset(range(n)), ordered=True))
    assert np.array_equal(np.stack(found), patterns.sort(0).values.numpy())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(15, 130), st.booleans())
def test_larger_ones_sort_like_sort(seed: int, n: int, ties: bool) -> None:
    rows = slab(seed, n, ties=ties)
    found = select(rows.clone(), network(n, frozenset(range(n)), ordered=True))
    assert np.array_equal(np.stack(found), rows.sort(0).values.numpy())


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 10**6), st.integers(1, 40), st.booleans(), st.booleans())
def test_any_ranks_are_selected_exactly(data: st.DataObject, seed: int, n: int, ties: bool, ordered: bool) -> None:
    wanted = data.draw(st.frozensets(st.integers(0, n - 1), min_size=1))
    rows = slab(seed, n, ties=ties)
    found = torch.from_numpy(np.stack(select(rows.clone(), network(n, wanted, ordered=ordered))))
    expected = rows.sort(0).values[sorted(wanted)]
    assert torch.equal(found if ordered else found.sort(0).values, expected)


def test_only_some_rows_may_be_used() -> None:
    rows = slab(1, 9)
    found = select(rows.clone(), network(4, frozenset({0, 3}), ordered=True), [1, 2, 5, 8])
    used = rows[[1, 2, 5, 8]]
    assert np.array_equal(found[0], used.min(0).values.numpy())
    assert np.array_equal(found[1], used.max(0).values.numpy())


def test_what_is_not_needed_is_not_computed() -> None:
    pairs = sorting_pairs(20)
    assert pruned(pairs, frozenset(range(20)), ordered=False) == []
    least = pruned(pairs, frozenset({0}), ordered=True)
    assert len(least) == 19
    assert not any(one.maximum for one in least)
    arranged = network(20, frozenset(range(4, 16)), ordered=True)
    assert len(network(20, frozenset(range(4, 16))).steps) < len(arranged.steps) < 2 * len(pairs)
    assert len(network(20, frozenset({9, 10})).steps) < 0.75 * 2 * len(pairs)


def test_a_mean_of_numbers_of_any_size_is_finite() -> None:
    largest = torch.finfo(torch.float32).max
    values = [np.array([v, 1.0], dtype=np.float32) for v in (largest, largest, 0.5 * largest, largest)]
    found = mean(values)
    assert found[0].item() == pytest.approx(0.875 * largest, rel=1e-6)
    assert found[1].item() == 1.0
    assert mean([np.array([largest, -1.0], dtype=np.float32)]).tolist() == [largest, -1.0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 300))
def test_the_mean_of_ranks_is_that_of_the_sorted(seed: int, n: int, d: int) -> None:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    wanted = frozenset(range(n // 3, n - n // 3))
    found = mean_of_ranks(UpdateMatrix.of(rows), wanted).dense(64)
    expected = rows.double().sort(0).values[sorted(wanted)].mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_narrow_blocks_give_what_wide_ones_give() -> None:
    rows = torch.randn(3, 100_000, generator=torch.Generator().manual_seed(1))
    widths = []

    def middle(part: torch.Tensor) -> torch.Tensor:
        widths.append(part.shape[1])
        return part.median(dim=0).values

    matrix = UpdateMatrix.of(rows)
    found = NarrowBlocks(matrix, middle).read(slice(5, 99_999))
    assert max(widths) < 99_994 == sum(widths)
    assert torch.equal(found, BlockRule(matrix, lambda part: part.median(dim=0).values).read(slice(5, 99_999)))
