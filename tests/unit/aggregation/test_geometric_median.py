from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.geometric_median import GeometricMedian
from covey.aggregation.matrix import UpdateMatrix
from covey.testing.aggregators import RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestGeometricMedianConforms(RobustConformance):
    def make(self) -> Aggregator:
        return GeometricMedian()

    def kappa(self, n: int, f: int) -> float:
        return 4 * (1 + f / (n - 2 * f)) ** 2


def median_of(rows: Tensor) -> Tensor:
    return GeometricMedian().aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense().double()


def cost(rows: Tensor, z: Tensor) -> float:
    return float((rows.double() - z).norm(dim=1).sum())


def naive(rows: Tensor) -> Tensor:
    """Weiszfeld's steps in float64 on the vectors themselves, from a point off all rows, a thousand times."""
    x = rows.double().numpy()
    z = x.mean(axis=0) + 1e-3 * np.random.default_rng(99).normal(size=x.shape[1])
    for _ in range(1000):
        pulls = 1 / np.maximum(np.linalg.norm(x - z, axis=1), 1e-12)
        z = pulls @ x / pulls.sum()
    return torch.from_numpy(z)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(2, 20))
def test_equals_a_naive_one_that_has_converged(seed: int, n: int, d: int) -> None:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    found, expected = median_of(rows), naive(rows)
    assert cost(rows, found) <= cost(rows, expected) * (1 + 1e-5)
    scale = float((rows.double() - expected).norm(dim=1).mean())
    # Where the median is near a row the cost hardly changes with the place (seed 26587, n = 4, d = 2: 5e-3).
    nearest = float((rows.double() - expected).norm(dim=1).min())
    assert float((found - expected).norm()) <= (2e-3 if nearest > 0.05 * scale else 1e-2) * scale


def test_in_one_dimension_it_is_the_median() -> None:
    rows = torch.tensor([[5.0], [1.0], [100.0], [2.0], [3.0]])
    assert median_of(rows).item() == pytest.approx(3.0, abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([1e1, 1e3, 1e7, 1e18]))
def test_a_minority_of_huge_rows_moves_it_by_a_bounded_distance(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, f = 11, 4
    honest = torch.randn(n - f, 15, generator=generator)
    rows = torch.cat([size * torch.randn(f, 15, generator=generator), honest])
    middle = honest.double().mean(0)
    bound = 4 * (1 + f / (n - 2 * f)) ** 2 * (honest.double() - middle).square().sum(1).mean()
    assert (median_of(rows) - middle).square().sum() <= bound


def test_a_row_at_the_mean_of_the_others_does_not_hold_the_iteration() -> None:
    # The iteration starts at the mean of all rows, which is then the attacker's row, where steps are tiny.
    generator = torch.Generator().manual_seed(6)
    honest = torch.cat([torch.randn(6, 10, generator=generator), 50 + torch.randn(3, 10, generator=generator)])
    rows = torch.cat([honest, honest.double().mean(0).float()[None]])
    found, expected = median_of(rows), naive(rows)
    assert float((rows[-1].double() - expected).norm()) > 20
    assert float((found - expected).norm()) < 0.05


def test_most_rows_identical_is_that_row() -> None:
    rows = torch.randn(7, 30, generator=torch.Generator().manual_seed(1))
    rows[:4] = rows[0]
    assert float((median_of(rows) - rows[0].double()).norm()) < 1e-4


def test_weights_sum_to_one_and_far_rows_have_less() -> None:
    rows = torch.randn(8, 30, generator=torch.Generator().manual_seed(2))
    rows[7] *= 100
    verdicts = GeometricMedian().aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert sum(v.share for v in verdicts) == pytest.approx(1.0)
    assert verdicts[7].share == min(v.share for v in verdicts)
    assert verdicts[7].numbers["distance"] > 100
    products = [v.share * v.numbers["distance"] for v in verdicts]
    assert products == pytest.approx([products[0]] * 8, rel=1e-3)


def test_translation_and_scale_move_the_result_along() -> None:
    rows = torch.randn(9, 50, generator=torch.Generator().manual_seed(4))
    shift = torch.randn(50, generator=torch.Generator().manual_seed(5))
    plain = median_of(rows)
    torch.testing.assert_close(median_of(rows + shift), plain + shift, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(median_of(rows * 1e-6), plain * 1e-6, rtol=1e-4, atol=1e-10)


def test_a_row_that_is_the_median_is_found_at_once() -> None:
    # Around the first row the unit vectors to the others cancel.
    others = torch.randn(4, 20, generator=torch.Generator().manual_seed(3))
    middle = torch.ones(1, 20)
    rows = torch.cat([middle, middle + others, middle - 5 * others])
    aggregate = GeometricMedian().aggregate(UpdateMatrix.of(rows), {}, ROUND)
    assert torch.equal(aggregate.direction.dense(), middle[0])
    assert [v.share for v in aggregate.verdicts] == [1.0] + [0.0] * 8


def test_fewer_iterations_are_less_exact_and_never_worse_than_a_row() -> None:
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(7))
    costs = []
    for count in (1, 2, 5, 300):
        rule = GeometricMedian({"max_iterations": count})
        costs.append(cost(rows, rule.aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense().double()))
    assert costs == sorted(costs, reverse=True)
    assert costs[0] < min(cost(rows, row.double()) for row in rows)
    assert costs[0] > costs[-1]
