from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.smea import SMEA, least_eigenvalue
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance, RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestSMEAConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return SMEA({"f": 2})


class TestSMEAIsRobust(RobustConformance):
    n = 11
    f = 3

    def make(self) -> Aggregator:
        return SMEA({"f": 3})

    def kappa(self, n: int, f: int) -> float:
        # Two subsets of n - f share n - 2f rows, whose mean is within sqrt(lambda f / (n - 2f)) of either's.
        return 4 * f / (n - 2 * f)


def aggregate(rows: torch.Tensor, f: int) -> Aggregate:
    return SMEA({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)


def covariance_norm(rows: np.ndarray) -> float:
    differences = rows - rows.mean(0)
    return float(np.linalg.eigvalsh(differences.T @ differences / len(rows))[-1])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 30.0]))
def test_equals_the_search_over_all_covariances(seed: int, f: int, extra: int, offset: float) -> None:
    n = 2 * f + 1 + extra
    rows = torch.randn(n, 9, generator=torch.Generator().manual_seed(seed)) + offset
    exact = rows.double().numpy()
    expected = min(combinations(range(n), n - f), key=lambda subset: covariance_norm(exact[list(subset)]))
    result = aggregate(rows, f)
    assert tuple(i for i, v in enumerate(result.verdicts) if v.accepted) == expected
    torch.testing.assert_close(result.direction.dense(), rows[list(expected)].mean(0), rtol=1e-5, atol=1e-6)


def test_the_example_of_the_authors_library() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    torch.testing.assert_close(aggregate(rows, 1).direction.dense(), torch.tensor([2.5, 3.5, 4.5]))


def test_all_subsets_are_searched_also_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(2).normal(size=(9, 3))
    distances = ((points[:, None] - points[None]) ** 2).sum(2)
    at_once = least_eigenvalue(distances, 6)
    monkeypatch.setattr("covey.aggregation.smea._PAIRS", 100)
    assert least_eigenvalue(distances, 6) == at_once


def test_without_attackers_it_is_the_mean() -> None:
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(aggregate(rows, 0).direction.dense(), rows.mean(0), rtol=1e-6, atol=1e-6)


def test_it_moves_and_scales_with_the_rows() -> None:
    rows = torch.randn(9, 40, generator=torch.Generator().manual_seed(4))
    shift = 50 * torch.randn(40, generator=torch.Generator().manual_seed(5))
    plain = aggregate(rows, 2).direction.dense()
    torch.testing.assert_close(aggregate(rows + shift, 2).direction.dense(), plain + shift, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(aggregate(rows * 16, 2).direction.dense(), plain * 16)


@pytest.mark.parametrize("seed", range(30))
def test_attackers_move_it_no_farther_than_the_covariance_allows(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, f = 10, 3
    honest = torch.randn(n - f, 30, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 5 - 1)
    rows = torch.cat([honest, honest.mean(0) + size * torch.randn(30, generator=generator).expand(f, -1)])
    moved = aggregate(rows, f).direction.dense() - honest.mean(0)
    assert float(moved.norm()) <= 2 * (covariance_norm(honest.double().numpy()) * f / (n - 2 * f)) ** 0.5 * (1 + 1e-5)


def test_far_rows_are_rejected_with_their_distance() -> None:
    rows = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    rows[1] += 50
    verdicts = aggregate(rows, 1).verdicts
    assert [v.accepted for v in verdicts] == [True, False, True, True, True, True]
    assert verdicts[1].numbers["distance"] > 200
    assert "least largest eigenvalue" in verdicts[1].reason


def test_too_many_subsets_are_refused() -> None:
    rule = SMEA({"f": 4, "max_subsets": 1000})
    assert rule.refusal(9) == ""
    assert rule.refusal(3) == ""
    assert "18 updates with f = 4 have 3060 subsets" in rule.refusal(18)
    with pytest.raises(RunFailed, match=r"smea: 18 updates.*3060 subsets.*max_subsets = 1000"):
        rule.aggregate(UpdateMatrix.of(torch.ones(18, 2)), {}, ROUND)
