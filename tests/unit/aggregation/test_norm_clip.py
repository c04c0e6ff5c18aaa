from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.norm_clip import NormClip
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestNormClipConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return NormClip()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 10))
def test_equals_the_naive_formula(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 40, generator=generator) * torch.rand(n, 1, generator=generator) * 10
    examples = (torch.rand(n, generator=generator) * 100 + 1).tolist()
    norms = [sum(float(x) ** 2 for x in row) ** 0.5 for row in rows]
    bound = statistics.median(norms)
    expected = [0.0] * 40
    for row, norm, weight in zip(rows, norms, examples, strict=True):
        for j in range(40):
            expected[j] += weight / sum(examples) * min(1.0, bound / norm) * float(row[j])
    result = NormClip().aggregate(UpdateMatrix.of(rows, weights=examples), {}, ROUND)
    torch.testing.assert_close(result.direction.dense(), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert [v.numbers["norm"] for v in result.verdicts] == pytest.approx(norms, rel=1e-5)


@pytest.mark.parametrize("size", [1e2, 1e18])
def test_a_huge_row_has_no_more_than_the_median_norm(size: float) -> None:
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    rows[2] *= size
    result = NormClip().aggregate(UpdateMatrix.of(rows), {}, ROUND)
    norms = rows.double().norm(dim=1)
    assert float(result.direction.dense().norm()) <= float(norms.median()) * (1 + 1e-5)
    assert result.verdicts[2].numbers["factor"] == pytest.approx(float(norms.median() / norms[2]), rel=1e-5)


def test_rows_of_one_norm_give_the_mean_to_the_bit_of_the_weights() -> None:
    rows = torch.tensor([[3.0, 4.0], [-5.0, 0.0], [0.0, 5.0]])
    result = NormClip().aggregate(UpdateMatrix.of(rows, weights=[0.5, 0.25, 0.25]), {}, ROUND)
    assert result.direction.dense().tolist() == [0.25, 3.25]
    assert [v.share for v in result.verdicts] == [0.5, 0.25, 0.25]


def test_weights_of_zero_are_refused() -> None:
    with pytest.raises(RunFailed, match="sum to zero"):
        NormClip().aggregate(UpdateMatrix.of(torch.ones(2, 3), weights=[0.0, 0.0]), {}, ROUND)
