from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.median import Median
from covey.errors import RunFailed, SpecError
from covey.testing.aggregators import AggregatorConformance, RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestMedianConforms(RobustConformance):
    def make(self) -> Aggregator:
        return Median({"f": 4})

    def kappa(self, n: int, f: int) -> float:
        return 4 * (1 + f / (n - 2 * f)) ** 2


class TestMedianOfTwoConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return Median()


def median_of(rows: torch.Tensor, f: int = 0) -> torch.Tensor:
    return Median({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 40), st.booleans())
def test_equals_the_naive_formula(seed: int, n: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = (
        torch.randint(-2, 3, (n, 50), generator=generator).float() if ties else torch.randn(n, 50, generator=generator)
    )
    ascending = rows.double().sort(0).values
    if n % 2:
        assert torch.equal(median_of(rows), ascending[n // 2].float())
    else:
        # The sum of two float32 may be rounded once more than the float64 one.
        expected = (ascending[n // 2 - 1] + ascending[n // 2]) / 2
        torch.testing.assert_close(median_of(rows).double(), expected, rtol=2e-7, atol=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([1.0, 1e10, -1e30, 3e38]))
def test_a_minority_cannot_leave_the_honest_hull(seed: int, f: int, value: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(f + 1 + seed % 3, 40, generator=generator)
    rows = torch.cat([honest, torch.full((f, 40), value)])
    found = median_of(rows[torch.randperm(len(rows), generator=generator)], f)
    assert (found >= honest.min(0).values).all()
    assert (found <= honest.max(0).values).all()


def test_translation_by_a_power_of_two_moves_the_result_along() -> None:
    rows = torch.randint(-100, 100, (9, 60), generator=torch.Generator().manual_seed(4)).float()
    assert torch.equal(median_of(rows + 1024), median_of(rows) + 1024)
    assert torch.equal(median_of(-rows), -median_of(rows))


def test_weights_have_no_part_but_are_recorded() -> None:
    rows = torch.tensor([[1.0], [2.0], [9.0]])
    result = Median().aggregate(UpdateMatrix.of(rows, weights=[0.1, 0.1, 0.8]), {}, ROUND)
    assert result.direction.dense().tolist() == [2.0]
    assert [verdict.share for verdict in result.verdicts] == [0.1, 0.1, 0.8]


def test_half_byzantine_is_refused() -> None:
    with pytest.raises(RunFailed, match="at least 7 updates, the round has 6"):
        median_of(torch.ones(6, 2), f=3)
    with pytest.raises(SpecError, match="f"):
        Median({"f": -1})
