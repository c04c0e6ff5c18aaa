"""Nothing is said of fewer than k examples, and it does not follow from what is said."""

from __future__ import annotations

import numpy as np
import pytest

from covey.methods.statistics.hiding import HIDDEN, tells_too_much, with_hidden


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ([40, 0, 30, 10], [40, 0, 30, 10]),
        ([40, 3, 30, 20, 50, 60], [-1, -1, -1, -1, 50, 60]),  # the smallest first
        ([60, 60, 60, 3, 60, 60, 60], [-1, -1, -1, -1, 60, 60, 60]),  # of equal ones what is near
        ([40, 0, 3, 0, 0, 30], [40, -1, -1, -1, -1, -1]),  # empty cells add nothing to what is hidden
        ([3, 500], [-1, -1]),
        ([4, 4, 4, 4, 100], [-1, -1, -1, -1, 100]),
        ([0, 0], [0, 0]),
    ],
)
def test_small_cells_are_hidden_and_others_with_them(cells: list[int], shown: list[int]) -> None:
    assert with_hidden(np.array(cells), 10).tolist() == shown


def test_what_is_hidden_never_follows_from_the_total() -> None:
    source = np.random.default_rng(3)
    for _ in range(300):
        k = int(source.integers(2, 30))
        cells = source.integers(0, 3 * k, source.integers(2, 12))
        if cells.sum() < k:
            continue
        shown = with_hidden(cells, k)
        hidden = shown == HIDDEN
        assert not ((shown > 0) & (shown < k)).any()
        assert (shown[~hidden] == cells[~hidden]).all()
        assert not hidden.any() or (cells[hidden].sum() >= k and hidden.sum() >= min(4, len(cells)))


def test_k_of_one_hides_nothing() -> None:
    assert with_hidden(np.array([1, 0, 2]), 1).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("values", "too_much"),
    [
        ([1.0] * 20, False),
        ([1.0] * 9, True),  # too few at all
        ([0.0] * 500 + [1.0] * 3, True),  # the mean says how many ones there are
        ([0.0] * 500 + [1.0] * 30, False),
        ([0.0] * 500 + [1.0] * 30 + [2.0] * 2, True),  # the variance helps
        ([0.0] * 500 + [1.0] * 30 + [2.0] * 2 + [3.0], False),
    ],
)
def test_moments_of_few_different_values_tell_how_often_each_occurs(values: list[float], too_much: bool) -> None:
    assert tells_too_much(np.array(values), 10) == too_much
