from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.minimum_diameter import MinimumDiameter, least_diameter
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestMinimumDiameterConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return MinimumDiameter({"f": 2})


def naive(rows: torch.Tensor, size: int) -> tuple[int, ...]:
    def score(subset: tuple[int, ...]) -> tuple[float, float]:
        squares = [float((rows[i].double() - rows[j].double()).square().sum()) for i, j in combinations(subset, 2)]
        return max(squares, default=0.0), sum(squares)

    return min(combinations(range(len(rows)), size), key=score)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3))
def test_equals_the_search_over_all_subsets(seed: int, f: int, extra: int) -> None:
    n = 2 * f + 1 + extra
    rows = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)).double().float()
    result = MinimumDiameter({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    expected = naive(rows, n - f)
    assert tuple(i for i, v in enumerate(result.verdicts) if v.accepted) == expected
    torch.testing.assert_close(result.direction.dense(), rows[list(expected)].mean(0), rtol=1e-5, atol=1e-6)


def test_all_subsets_are_searched_also_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(2).normal(size=(9, 3))
    distances = ((points[:, None] - points[None]) ** 2).sum(2)
    at_once = least_diameter(distances, 6)
    monkeypatch.setattr("covey.aggregation.minimum_diameter._PAIRS", 100)
    assert least_diameter(distances, 6) == at_once


def test_of_equal_diameters_the_least_sum_then_the_first() -> None:
    # The pair at 0 and 4 decides the diameter of both triples; 2 is nearer to both than 3.9 on the whole.
    line = np.array([0.0, 4.0, 3.9, 2.0])
    square = (line[:, None] - line[None]) ** 2
    assert least_diameter(square, 3) == [1, 2, 3]
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    equal = ((corners[:, None] - corners[None]) ** 2).sum(2)
    assert least_diameter(equal, 2) == [0, 1]


@pytest.mark.parametrize("seed", range(40))
def test_attackers_move_it_by_at_most_two_f_diameters_over_n_minus_f(seed: int) -> None:
    # The subset shares n - 2f rows with the honest ones, and its diameter is at most theirs.
    generator = torch.Generator().manual_seed(seed)
    n, f = 11, 3
    honest = torch.randn(n - f, 6, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 3 - 1)
    rows = torch.cat([honest.mean(0) + size * torch.randn(f, 6, generator=generator), honest])
    found = MinimumDiameter({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()
    diameter = float((honest[:, None] - honest[None]).norm(dim=2).max())
    assert float((found - honest.mean(0)).norm()) <= 2 * f / (n - f) * diameter * (1 + 1e-5)


def test_without_attackers_it_is_the_mean() -> None:
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    found = MinimumDiameter().aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()
    torch.testing.assert_close(found, rows.mean(0), rtol=1e-6, atol=1e-6)


def test_far_rows_are_rejected_with_their_distance() -> None:
    rows = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    rows[1] += 50
    verdicts = MinimumDiameter({"f": 1}).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert [v.accepted for v in verdicts] == [True, False, True, True, True, True]
    assert verdicts[1].numbers["distance"] > 200
    assert "least diameter" in verdicts[1].reason


def test_too_many_subsets_are_refused() -> None:
    rule = MinimumDiameter({"f": 4, "max_subsets": 1000})
    with pytest.raises(RunFailed, match=r"3060 subsets.*max_subsets = 1000"):
        rule.aggregate(UpdateMatrix.of(torch.ones(18, 2)), {}, ROUND)
