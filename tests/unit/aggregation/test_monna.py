from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.monna import MoNNA, squared_distances_to
from covey.errors import LayoutError
from covey.testing.aggregators import AggregatorConformance, QuadraticRoot


class TestMoNNAConforms(AggregatorConformance):
    keeps_identical = False  # the trusted update has a part in the mean

    def make(self) -> Aggregator:
        return MoNNA({"f": 2})


def aggregate(rows: torch.Tensor, root: torch.Tensor, f: int) -> Aggregate:
    context = AggregationContext(round=1, seed=0, root=QuadraticRoot(root))
    return MoNNA({"f": f}).aggregate(UpdateMatrix.of(rows), {}, context)


def naive_distance(row: torch.Tensor, root: torch.Tensor) -> float:
    return math.sqrt(math.fsum((float(a) - float(b)) ** 2 for a, b in zip(row, root, strict=True)))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 4))
def test_equals_the_naive_formula(seed: int, f: int, extra: int) -> None:
    n = 2 * f + 1 + extra
    generator = torch.Generator().manual_seed(seed)
    rows, root = torch.randn(n, 25, generator=generator), torch.randn(25, generator=generator)
    distances = [naive_distance(row, root) for row in rows]
    nearest = sorted(range(n), key=lambda i: distances[i])[: n - f]
    result = aggregate(rows, root, f)
    expected = torch.cat([rows[nearest], root[None]]).double().mean(0).float()
    torch.testing.assert_close(result.direction.dense(), expected, rtol=1e-5, atol=1e-6)
    assert [i for i, v in enumerate(result.verdicts) if v.accepted] == sorted(nearest)
    assert [v.numbers["distance"] for v in result.verdicts] == pytest.approx(distances, rel=1e-5)


def test_the_trusted_update_has_one_share() -> None:
    result = aggregate(torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([0.0]), 1)
    assert result.direction.dense().item() == 1.0
    assert [v.share for v in result.verdicts] == pytest.approx([1 / 3, 1 / 3, 0])
    assert "2 updates nearest to the one from the trusted data" in result.verdicts[2].reason


def test_of_equally_near_updates_the_earlier_is_taken() -> None:
    result = aggregate(torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([0.0]), 1)
    assert [v.accepted for v in result.verdicts] == [True, True, False]


def test_it_moves_and_scales_with_rows_and_trusted_update() -> None:
    generator = torch.Generator().manual_seed(3)
    rows, root = torch.randn(9, 50, generator=generator), torch.randn(50, generator=generator)
    shift = torch.randn(50, generator=generator)
    plain = aggregate(rows, root, 2).direction.dense()
    moved = aggregate(rows + shift, root + shift, 2).direction.dense()
    torch.testing.assert_close(moved, plain + shift, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(aggregate(rows * 4, root * 4, 2).direction.dense(), plain * 4)


@pytest.mark.parametrize("seed", range(30))
def test_the_result_is_no_farther_from_the_trusted_update_than_the_farthest_honest_one(seed: int) -> None:
    # n - f rows are honest, so no row that is chosen is farther away than the farthest of them.
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(7, 20, generator=generator)
    root = 0.3 * torch.randn(20, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 6 - 1)
    found = aggregate(torch.cat([honest, size * torch.randn(3, 20, generator=generator)]), root, 3).direction.dense()
    assert float((found - root).norm()) <= float((honest - root).norm(dim=1).max()) * (1 + 1e-5)


def test_distances_of_near_rows_keep_their_digits() -> None:
    # From scalar products in float32 nothing is left of a distance of 1e-6 of the norm.
    generator = torch.Generator().manual_seed(1)
    root = 100 * torch.randn(40_000, generator=generator)
    rows = root + 1e-3 * torch.randn(3, 40_000, generator=generator)
    expected = (rows.double() - root.double()).square().sum(1)
    torch.testing.assert_close(squared_distances_to(UpdateMatrix.of(rows), root), expected, rtol=1e-5, atol=0)


def test_a_trusted_update_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutError, match="5 elements"):
        aggregate(torch.ones(3, 5), torch.ones(4), 1)
