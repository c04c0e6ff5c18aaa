from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.bulyan import Bulyan, repeated_krum
from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.gram import squared_distances
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestBulyanConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return Bulyan({"f": 2})


class TestBulyanOfOneConforms(AggregatorConformance):
    """With f = 1 the last choices are among fewer rows than Krum allows."""

    def make(self) -> Aggregator:
        return Bulyan({"f": 1})


class TestBulyanWithoutFConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return Bulyan()


def naive_choice(rows: list[list[float]], f: int) -> list[int]:
    def squared(a: int, b: int) -> float:
        return sum((x - y) ** 2 for x, y in zip(rows[a], rows[b], strict=True))

    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        keys = {}
        for i in left:
            near = sorted(squared(i, j) for j in left if j != i)
            keys[i] = (sum(near[: max(len(left) - f - 2, 1)]), sum(near))
        best = min(left, key=lambda i: keys[i])
        chosen.append(best)
        left.remove(best)
    return sorted(chosen)


def naive_column(values: list[float], beta: int) -> float:
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    nearest = sorted(ordered, key=lambda value: (abs(value - middle), value))[:beta]
    return sum(nearest) / beta


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_equals_the_naive_formula(seed: int, f: int, extra: int, attacked: bool) -> None:
    n, d = 4 * f + 3 + extra, 12
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator)
    if attacked and f:
        rows[:f] = 5 * torch.randn(f, d, generator=generator) - 3
    result = Bulyan({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    values = rows.double().tolist()
    chosen = naive_choice(values, f) if f else list(range(n))
    assert [i for i, verdict in enumerate(result.verdicts) if verdict.accepted] == chosen
    expected = [naive_column([values[i][j] for i in chosen], n - 4 * f) for j in range(d)]
    torch.testing.assert_close(result.direction.dense().tolist(), expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 9))
def test_the_columns_keep_what_is_nearest_to_the_median_with_ties(seed: int, f: int, extra: int) -> None:
    # One coordinate each in small integers: many equal values and equal distances.
    n = 4 * f + 3 + extra
    rows = torch.randint(-4, 5, (n, 1), generator=torch.Generator().manual_seed(seed)).float()
    result = Bulyan({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    chosen = [float(rows[i, 0]) for i, verdict in enumerate(result.verdicts) if verdict.accepted]
    assert result.direction.dense().item() == pytest.approx(naive_column(chosen, n - 4 * f), rel=1e-6, abs=1e-6)


def test_without_f_it_is_the_mean() -> None:
    matrix = UpdateMatrix.of(torch.randn(7, 300, generator=torch.Generator().manual_seed(5)))
    found, mean = (rule.aggregate(matrix, {}, ROUND).direction.dense() for rule in (Bulyan(), Mean()))
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1e2, -1e10, 1e18]), st.booleans())
def test_huge_rows_have_no_part(seed: int, f: int, size: float, colluding: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(3 * f + 3, 30, generator=generator)
    factors = torch.ones(f, 1) if colluding else torch.arange(1.0, f + 1)[:, None]
    rows = torch.cat([size * factors.repeat(1, 30), honest])
    result = Bulyan({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    if not colluding:
        assert not any(verdict.accepted for verdict in result.verdicts[:f])
    # Identical rows are their own nearest neighbours, so Krum's last choices fall on them; no coordinate does.
    found = result.direction.dense()
    assert (found >= honest.min(0).values - 1e-5).all()
    assert (found <= honest.max(0).values + 1e-5).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 2))
def test_one_hidden_coordinate_cannot_leave_the_honest_hull(seed: int, f: int) -> None:
    # The attack that Bulyan is against: an update like the honest ones but in one coordinate, so that Krum takes it.
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(3 * f + 3, 400, generator=generator)
    hidden = honest.mean(0).repeat(f, 1)
    hidden[:, 7] += 8.0
    found = Bulyan({"f": f}).aggregate(UpdateMatrix.of(torch.cat([honest, hidden])), {}, ROUND)
    assert all(verdict.accepted for verdict in found.verdicts[-f:])
    assert honest[:, 7].min() - 1e-5 <= found.direction.dense()[7] <= honest[:, 7].max() + 1e-5


def test_choices_of_many_identical_rows_are_the_first() -> None:
    distances = squared_distances(torch.ones(9, 9, dtype=torch.float64))
    assert repeated_krum(distances.numpy(), 5, 2) == [0, 1, 2, 3, 4]
    assert repeated_krum(np.zeros((3, 3)), 3, 0) == [0, 1, 2]


def test_verdicts_have_reason_and_number() -> None:
    rows = torch.randn(11, 20, generator=torch.Generator().manual_seed(3))
    rows[4] += 50
    verdicts = Bulyan({"f": 2}).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert [v.share for v in verdicts if v.accepted] == [1 / 7] * 7
    assert "7 updates" in verdicts[4].reason
    assert verdicts[4].numbers["score"] == max(v.numbers["score"] for v in verdicts)


def test_too_few_updates_are_refused() -> None:
    with pytest.raises(RunFailed, match="at least 11 updates, the round has 10"):
        Bulyan({"f": 2}).aggregate(UpdateMatrix.of(torch.ones(10, 2)), {}, ROUND)
