from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.bucketing import Bucketing
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AggregationContext, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.median import Median
from covey.aggregation.nearest_neighbour_mixing import NearestNeighbourMixing
from covey.aggregation.static_clip import StaticClip
from covey.errors import RunFailed, SpecError
from covey.testing.aggregators import PreAggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestStaticClipConforms(PreAggregatorConformance):
    def make(self) -> PreAggregator:
        return StaticClip({"c": 2.0})


def clipped(rows: torch.Tensor, c: float) -> torch.Tensor:
    return StaticClip({"c": c}).weights(UpdateMatrix.of(rows), ROUND) @ rows.double()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_equals_the_naive_formula(seed: int, n: int, c: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 15, generator=generator) * 10 * torch.rand(n, 1, generator=generator)
    for row, found in zip(rows.tolist(), clipped(rows, c).tolist(), strict=True):
        norm = sum(x * x for x in row) ** 0.5
        assert found == pytest.approx([x * min(1.0, c / norm) for x in row], rel=1e-5, abs=1e-9)


def test_short_rows_are_left_as_they_are() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]])
    torch.testing.assert_close(clipped(rows, 5.0), torch.tensor([[3.0, 4.0], [0, 0], [3, 4]], dtype=torch.float64))


def test_a_clipped_row_keeps_its_weight() -> None:
    rows = UpdateMatrix.of(torch.tensor([[10.0, 0.0], [0.0, 1.0]]), weights=[0.75, 0.25])
    result = Composed([StaticClip({"c": 2.0})], Mean()).aggregate(rows, {}, ROUND)
    assert result.direction.dense().tolist() == pytest.approx([0.75 * 2, 0.25 * 1])
    assert [v.share for v in result.verdicts] == pytest.approx([0.75 * 0.2, 0.25])


def test_clipped_before_they_are_mixed_rows_keep_their_weights() -> None:
    rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)) * torch.tensor([[1], [5], [0.1], [9], [1]])
    weights = [0.1, 0.2, 0.4, 0.2, 0.1]
    matrix = UpdateMatrix.of(rows, weights=weights)
    mixing = NearestNeighbourMixing({"f": 2})
    short = rows / rows.norm(dim=1, keepdim=True).clamp(min=1)
    alone = mixing.weights(UpdateMatrix.of(short), ROUND)
    shares = alone @ torch.tensor(weights, dtype=torch.float64)
    expected = (shares / shares.sum()) @ (alone @ short.double())
    result = Composed([StaticClip({"c": 1.0}), mixing], Mean()).aggregate(matrix, {}, ROUND)
    torch.testing.assert_close(result.direction.dense().double(), expected, rtol=1e-6, atol=1e-6)


def test_a_huge_row_cannot_carry_its_bucket_away() -> None:
    rows = torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    rows[3] *= 1e12
    result = Composed([StaticClip({"c": 4.0}), Bucketing({"s": 2})], Median({"f": 1})).aggregate(
        UpdateMatrix.of(rows), {}, ROUND
    )
    assert float(result.direction.dense().norm()) < 4.0


def test_a_bound_is_needed_and_positive() -> None:
    with pytest.raises(SpecError, match=r"options\.c: this key is required"):
        StaticClip({})
    with pytest.raises(SpecError, match="greater than 0"):
        StaticClip({"c": 0})


def test_no_rows_are_refused() -> None:
    with pytest.raises(RunFailed, match="at least 1"):
        StaticClip({"c": 1.0}).weights(UpdateMatrix([]), ROUND)
