from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.fltrust import FLTrust
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import LayoutError
from covey.testing.aggregators import AggregatorConformance, QuadraticRoot


class TestFLTrustConforms(AggregatorConformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return FLTrust()


def aggregate(rows: torch.Tensor, root: torch.Tensor) -> Aggregate:
    context = AggregationContext(round=1, seed=0, root=QuadraticRoot(root))
    return FLTrust().aggregate(UpdateMatrix.of(rows), {}, context)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_equals_the_naive_formula(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(30, generator=generator)
    rows = torch.randn(n, 30, generator=generator) * (0.1 + 10 * torch.rand(n, 1, generator=generator))
    rows[0] += root
    length = math.sqrt(sum(float(x) ** 2 for x in root))
    total, trusts = [0.0] * 30, []
    for row in rows:
        norm = math.sqrt(sum(float(x) ** 2 for x in row))
        trust = max(0.0, sum(float(a) * float(b) for a, b in zip(row, root, strict=True)) / (norm * length))
        trusts.append(trust)
        total = [t + trust * length / norm * float(x) for t, x in zip(total, row, strict=True)]
    result = aggregate(rows, root)
    everything = sum(trusts) or 1.0
    expected = torch.tensor([t / everything for t in total])
    torch.testing.assert_close(result.direction.dense(), expected, rtol=1e-4, atol=1e-5)
    assert [v.share for v in result.verdicts] == pytest.approx([t / everything for t in trusts], abs=1e-6)
    assert [v.accepted for v in result.verdicts] == [t > 0 for t in trusts]


def test_only_the_direction_of_an_update_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(50, generator=generator)
    rows = root + torch.randn(5, 50, generator=generator)
    scales = torch.tensor([1.0, 1e-6, 1e3, 1e12, 7.0])[:, None]
    plain, scaled = aggregate(rows, root), aggregate(rows * scales, root)
    torch.testing.assert_close(scaled.direction.dense(), plain.direction.dense(), rtol=1e-4, atol=1e-5)


def test_an_opposite_update_is_rejected_with_its_cosine() -> None:
    root = torch.tensor([3.0, 4.0, 0.0])
    result = aggregate(torch.stack([-10 * root, 2 * root]), root)
    assert [v.accepted for v in result.verdicts] == [False, True]
    assert result.verdicts[0].numbers == pytest.approx({"cosine": -1.0, "factor": 0.1})
    assert "does not point the way" in result.verdicts[0].reason
    torch.testing.assert_close(result.direction.dense(), root)


def test_the_result_is_never_longer_than_the_root_update() -> None:
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(40, generator=generator)
    rows = 1e6 * (torch.randn(8, 40, generator=generator) + 0.3 * root)
    assert float(aggregate(rows, root).direction.dense().norm()) <= float(root.norm()) * (1 + 1e-5)


def test_without_any_trust_the_direction_is_zero_and_all_are_rejected() -> None:
    root = torch.ones(4)
    result = aggregate(torch.stack([-root, -2 * root, torch.zeros(4)]), root)
    assert torch.equal(result.direction.dense(), torch.zeros(4))
    assert not any(v.accepted for v in result.verdicts)
    assert ["is zero" in v.reason for v in result.verdicts] == [False, False, True]
    nothing = aggregate(torch.ones(2, 4), torch.zeros(4))
    assert torch.equal(nothing.direction.dense(), torch.zeros(4))
    assert not any(v.accepted for v in nothing.verdicts)


def test_a_root_update_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutError, match="5 elements"):
        aggregate(torch.ones(2, 5), torch.ones(4))
