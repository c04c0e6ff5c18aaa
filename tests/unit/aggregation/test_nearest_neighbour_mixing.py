from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.nearest_neighbour_mixing import NearestNeighbourMixing
from covey.errors import RunFailed
from covey.testing.aggregators import PreAggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestNearestNeighbourMixingConforms(PreAggregatorConformance):
    def make(self) -> PreAggregator:
        return NearestNeighbourMixing({"f": 2})


def mix(rows: torch.Tensor, f: int) -> torch.Tensor:
    return NearestNeighbourMixing({"f": f}).weights(UpdateMatrix.of(rows), ROUND)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 4))
def test_equals_the_naive_formula(seed: int, f: int, extra: int) -> None:
    n = 2 * f + 1 + extra
    rows = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))
    expected = torch.zeros(n, 12, dtype=torch.float64)
    for i in range(n):
        nearest = sorted(range(n), key=lambda j: float((rows[i].double() - rows[j].double()).norm()))[: n - f]
        expected[i] = rows[nearest].double().mean(0)
    torch.testing.assert_close(mix(rows, f) @ rows.double(), expected)


def test_without_attackers_all_rows_become_the_mean() -> None:
    assert torch.equal(mix(torch.randn(5, 3), 0), torch.full((5, 5), 0.2, dtype=torch.float64))


def test_a_row_is_among_its_own_neighbours_even_if_it_is_not_the_first_of_its_kind() -> None:
    weights = mix(torch.ones(7, 3), 3)
    assert (weights.diagonal() == 0.25).all()
    assert weights[0].tolist() == [0.25, 0.25, 0.25, 0.25, 0, 0, 0]
    assert weights[6].tolist() == [0.25, 0.25, 0.25, 0, 0, 0, 0.25]


def test_neighbours_do_not_change_when_all_rows_are_moved_or_scaled() -> None:
    rows = torch.randn(9, 20, generator=torch.Generator().manual_seed(2))
    assert torch.equal(mix(rows + 3 * torch.ones(20), 2), mix(rows, 2))
    assert torch.equal(mix(rows * 1e-8, 2), mix(rows, 2))


def test_no_honest_row_takes_in_a_huge_one() -> None:
    rows = torch.randn(9, 20, generator=torch.Generator().manual_seed(1))
    rows[2] *= 1e10
    weights = mix(rows, 1)
    assert weights[:, 2].nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("seed", range(20))
def test_mixing_lowers_the_spread_by_the_papers_factor(seed: int) -> None:
    # Allouah et al., Lemma 1: variance and bias of the mixed honest rows are at most 8f / (n - f) of the variance.
    generator = torch.Generator().manual_seed(seed)
    n, f = 17, 3
    honest = torch.randn(n - f, 10, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 3 - 1)
    rows = torch.cat([honest, size * torch.randn(f, 10, generator=generator)])
    mixed = (mix(rows, f) @ rows.double())[: n - f]
    middle, after = honest.double().mean(0), mixed.mean(0)
    before = (honest.double() - middle).square().sum(1).mean()
    assert (mixed - after).square().sum(1).mean() + (after - middle).square().sum() <= 8 * f / (n - f) * before


def test_half_of_the_updates_cannot_be_byzantine() -> None:
    with pytest.raises(RunFailed, match="at least 5 updates, the round has 4"):
        mix(torch.ones(4, 2), 2)
