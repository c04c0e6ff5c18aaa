from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.median import Median
from covey.aggregation.trimmed_mean import TrimmedMean
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance, RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestTrimmedMeanConforms(RobustConformance):
    def make(self) -> Aggregator:
        return TrimmedMean({"f": 4})

    def kappa(self, n: int, f: int) -> float:
        ratio = f / (n - 2 * f)
        return 6 * ratio * (1 + ratio)


class TestTrimmedMeanWithoutFConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return TrimmedMean()


def trimmed(rows: torch.Tensor, f: int) -> torch.Tensor:
    return TrimmedMean({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(0, 10**6), st.integers(1, 40), st.booleans())
def test_equals_the_naive_formula(data: st.DataObject, seed: int, n: int, ties: bool) -> None:
    f = data.draw(st.integers(0, (n - 1) // 2))
    generator = torch.Generator().manual_seed(seed)
    rows = (
        torch.randint(-2, 3, (n, 50), generator=generator).float() if ties else torch.randn(n, 50, generator=generator)
    )
    expected = rows.double().sort(0).values[f : n - f].mean(0)
    torch.testing.assert_close(trimmed(rows, f).double(), expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([1.0, 1e10, -1e30, 3e38]))
def test_a_minority_cannot_leave_the_honest_hull(seed: int, f: int, value: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(f + 1 + seed % 3, 40, generator=generator)
    rows = torch.cat([honest, torch.full((f, 40), value)])
    found = trimmed(rows[torch.randperm(len(rows), generator=generator)], f)
    slack = 1e-6 * honest.abs().max()
    assert (found >= honest.min(0).values - slack).all()
    assert (found <= honest.max(0).values + slack).all()


def test_its_ends_are_the_mean_and_the_median() -> None:
    rows = torch.randn(9, 500, generator=torch.Generator().manual_seed(2))
    matrix = UpdateMatrix.of(rows)
    mean = Mean().aggregate(matrix, {}, ROUND).direction.dense()
    torch.testing.assert_close(trimmed(rows, 0), mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(trimmed(rows, 4), Median().aggregate(matrix, {}, ROUND).direction.dense())


def test_huge_values_leave_no_trace() -> None:
    # Trimming by subtracting the extremes from the sum would lose the small values here.
    rows = torch.tensor([[1.0], [2.0], [3.0], [1e30], [-1e30]])
    assert trimmed(rows, 1).tolist() == [2.0]


def test_half_byzantine_is_refused() -> None:
    with pytest.raises(RunFailed, match="at least 5 updates, the round has 4"):
        trimmed(torch.ones(4, 2), 2)
