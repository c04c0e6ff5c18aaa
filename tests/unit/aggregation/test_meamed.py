from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.meamed import MeaMed
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestMeaMedConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return MeaMed({"f": 2})


def aggregate(rows: torch.Tensor, f: int) -> torch.Tensor:
    return MeaMed({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()


def naive(rows: torch.Tensor, f: int) -> list[float]:
    result = []
    for column in rows.T.tolist():
        median = statistics.median(column)
        nearest = sorted(column, key=lambda value: (abs(value - median), value))[: len(column) - f]
        result.append(statistics.fmean(nearest))
    return result


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 4), st.sampled_from([1e-12, 1.0, 1e12]))
def test_equals_the_naive_formula(seed: int, f: int, extra: int, scale: float) -> None:
    rows = torch.randn(2 * f + 1 + extra, 40, generator=torch.Generator().manual_seed(seed)) * scale
    found = aggregate(rows, f) / scale
    torch.testing.assert_close(found.tolist(), [x / scale for x in naive(rows, f)], rtol=1e-5, atol=1e-6)


def test_of_equally_near_values_the_lesser_is_taken() -> None:
    assert aggregate(torch.tensor([[1.0], [2.0], [3.0]]), 1).item() == 1.5


def test_it_leaves_out_what_is_far_on_one_side_only() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [100.0], [101.0]])
    assert aggregate(rows, 2).item() == 2.0


def test_without_attackers_it_is_the_mean() -> None:
    rows = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(aggregate(rows, 0), rows.mean(0), rtol=1e-6, atol=1e-6)


def test_it_moves_and_scales_with_the_rows() -> None:
    rows = torch.randn(9, 60, generator=torch.Generator().manual_seed(4))
    shift = torch.randn(60, generator=torch.Generator().manual_seed(5))
    plain = aggregate(rows, 2)
    torch.testing.assert_close(aggregate(rows + shift, 2), plain + shift, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(aggregate(rows * 8, 2), plain * 8)


@pytest.mark.parametrize("seed", range(20))
def test_every_coordinate_stays_near_the_honest_values(seed: int) -> None:
    # The median is among the honest values; n - f of them are within the honest range of it, so those chosen are too.
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(8, 30, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 6 - 1)
    found = aggregate(torch.cat([size * torch.randn(3, 30, generator=generator), honest]), 3)
    least, greatest = honest.min(0).values, honest.max(0).values
    span = greatest - least
    assert (found >= least - span).all()
    assert (found <= greatest + span).all()
    assert float((found - honest.mean(0)).abs().max()) < float(span.max())


def test_all_are_accepted_with_their_own_weight() -> None:
    rows = UpdateMatrix.of(torch.randn(3, 5), weights=[0.5, 0.3, 0.2])
    verdicts = MeaMed({"f": 1}).aggregate(rows, {}, ROUND).verdicts
    assert [(v.accepted, v.share) for v in verdicts] == [(True, 0.5), (True, 0.3), (True, 0.2)]
