from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covey.aggregation.bucketing import Bucketing
from covey.aggregation.contract import AggregationContext, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import SpecError
from covey.testing.aggregators import PreAggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestBucketingConforms(PreAggregatorConformance):
    def make(self) -> PreAggregator:
        return Bucketing({"s": 3})


def buckets(n: int, s: int, context: AggregationContext = ROUND) -> torch.Tensor:
    return Bucketing({"s": s}).weights(UpdateMatrix.of(torch.ones(n, 2)), context)


@given(st.integers(1, 40), st.integers(1, 7))
def test_every_update_is_in_one_bucket_of_the_right_size(n: int, s: int) -> None:
    weights = buckets(n, s)
    sizes = (weights > 0).sum(1).tolist()
    assert sizes == [s] * (n // s) + ([n % s] if n % s else [])
    assert ((weights > 0).sum(0) == 1).all()
    for row, size in zip(weights, sizes, strict=True):
        assert (row[row > 0] == 1 / size).all()


def test_buckets_follow_from_seed_and_round_alone() -> None:
    other_rows = Bucketing({"s": 2}).weights(UpdateMatrix.of(torch.randn(20, 5)), ROUND)
    assert torch.equal(buckets(20, 2), other_rows)
    assert not torch.equal(buckets(20, 2), buckets(20, 2, AggregationContext(round=2, seed=0)))
    assert not torch.equal(buckets(20, 2), buckets(20, 2, AggregationContext(round=1, seed=1)))


def test_over_rounds_every_pair_meets() -> None:
    met = torch.zeros(6, 6)
    for number in range(1, 200):
        weights = (buckets(6, 2, AggregationContext(round=number, seed=3)) > 0).float()
        met += weights.T @ weights
    pairs = met[~torch.eye(6, dtype=torch.bool)]
    assert pairs.min() > 199 / 5 / 2
    assert pairs.max() < 199 / 5 * 2


def test_buckets_of_one_leave_the_updates_as_they_are() -> None:
    assert torch.equal(buckets(5, 1), torch.eye(5, dtype=torch.float64))


def test_rows_needed_for_a_rule_that_needs_nine() -> None:
    assert Bucketing().rows_needed(9) == 17
    with pytest.raises(SpecError, match=r"aggregation\.pre\.options.*s"):
        Bucketing({"s": 0})
