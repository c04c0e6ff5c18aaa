"""The share that is shown of a clipped update is the one that was used: what the rule gave it, times its factor."""

from __future__ import annotations

import pytest
import torch

from covey.aggregation.arc import ARC
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AggregationContext, Aggregator, PreAggregator
from covey.aggregation.krum import Krum
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.static_clip import StaticClip

ROUND = AggregationContext(round=1, seed=0)
N, F = 7, 2
CLIPPING = pytest.mark.parametrize("clipping", [StaticClip({"c": 2.0}), ARC({"f": F})], ids=["static-clip", "arc"])


def updates() -> tuple[torch.Tensor, list[float]]:
    """Rows of which one is long, and weights."""
    rows = torch.randn(N, 12, generator=torch.Generator().manual_seed(5))
    rows[3] *= 50
    weights = [0.05, 0.1, 0.15, 0.3, 0.1, 0.1, 0.2]
    return rows, weights


@CLIPPING
@pytest.mark.parametrize("rule", [Mean(), Krum({"f": F})], ids=["mean", "krum"])
def test_the_result_is_the_sum_of_the_updates_by_their_shares(clipping: PreAggregator, rule: Aggregator) -> None:
    rows, weights = updates()
    result = Composed([clipping], rule).aggregate(UpdateMatrix.of(rows, weights=weights), {}, ROUND)
    shares = torch.tensor([verdict.share for verdict in result.verdicts], dtype=torch.float64)
    torch.testing.assert_close(result.direction.dense().double(), shares @ rows.double(), rtol=1e-5, atol=1e-6)
    assert 0 < float(shares.sum()) <= 1


@CLIPPING
def test_each_share_is_that_of_the_rule_times_the_factor(clipping: PreAggregator) -> None:
    rows, weights = updates()
    matrix = UpdateMatrix.of(rows, weights=weights)
    factors = clipping.weights(matrix, ROUND).diagonal()
    result = Composed([clipping], Mean()).aggregate(matrix, {}, ROUND)
    plain = Mean().aggregate(matrix, {}, ROUND)
    expected = [verdict.share * float(factor) for verdict, factor in zip(plain.verdicts, factors, strict=True)]
    assert [verdict.share for verdict in result.verdicts] == pytest.approx(expected)
    assert float(factors[3]) < 0.2
    assert result.verdicts[3].share < plain.verdicts[3].share / 5
