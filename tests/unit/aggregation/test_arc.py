from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.arc import ARC
from covey.aggregation.composition import Composed
from covey.aggregation.contract import AggregationContext, Aggregator, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.aggregation.trimmed_mean import TrimmedMean
from covey.errors import RunFailed
from covey.testing.aggregators import PreAggregatorConformance, RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestARCConforms(PreAggregatorConformance):
    def make(self) -> PreAggregator:
        return ARC({"f": 2})


class TestARCBeforeTrimmedMeanIsRobust(RobustConformance):
    test_refuses_unknown_options = None  # type: ignore[assignment]
    keeps_identical = True

    def make(self) -> Aggregator:
        return Composed([ARC({"f": 4})], TrimmedMean({"f": 4}))

    def kappa(self, n: int, f: int) -> float:
        # That of the trimmed mean, and 2f / (n - 2f) for the clipping of honest rows (the paper's Theorem 3.2, quoted
        # from memory).
        ratio = f / (n - 2 * f)
        return 6 * ratio * (1 + ratio) + 2 * ratio


def clipped(rows: torch.Tensor, f: int) -> torch.Tensor:
    return ARC({"f": f}).weights(UpdateMatrix.of(rows), ROUND) @ rows.double()


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 6))
def test_equals_the_naive_formula(seed: int, f: int, extra: int) -> None:
    n = 2 * f + 1 + extra
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 15, generator=generator) * 10 * torch.rand(n, 1, generator=generator)
    norms = [sum(x * x for x in row) ** 0.5 for row in rows.tolist()]
    longest_first = sorted(norms, reverse=True)
    bound = longest_first[int(2 * f * (n - f) / n + 1e-9)]
    for row, norm, found in zip(rows.tolist(), norms, clipped(rows, f).tolist(), strict=True):
        assert found == pytest.approx([x * min(1.0, bound / norm) for x in row], rel=1e-5, abs=1e-9)


def test_the_example_of_the_authors_library() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    expected = [[1, 2, 3], [4, 5, 6], [4.41004009, 5.04004582, 5.67005155]]
    torch.testing.assert_close(clipped(rows, 1), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "f", "count"), [(25, 5, 8), (18, 3, 5), (7, 3, 3), (20, 4, 6), (5, 1, 1)])
def test_so_many_rows_are_clipped(n: int, f: int, count: int) -> None:
    rows = torch.arange(1.0, n + 1)[:, None]
    assert int((clipped(rows, f).flatten() < rows.flatten()).sum()) == count


@pytest.mark.parametrize("seed", range(20))
def test_no_row_stays_longer_than_the_longest_honest_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(9, 20, generator=generator)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 8 - 1)
    rows = torch.cat([size * torch.randn(4, 20, generator=generator), honest])
    assert float(clipped(rows, 4).norm(dim=1).max()) <= float(honest.norm(dim=1).max()) * (1 + 1e-5)


def test_directions_and_scale_are_kept() -> None:
    rows = torch.randn(9, 20, generator=torch.Generator().manual_seed(2))
    found = clipped(rows, 3)
    torch.testing.assert_close(torch.cosine_similarity(found, rows.double()), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(clipped(rows * 1e-6, 3), found * 1e-6)


def test_without_attackers_nothing_is_clipped() -> None:
    weights = ARC().weights(UpdateMatrix.of(torch.randn(5, 3)), ROUND)
    assert torch.equal(weights, torch.eye(5, dtype=torch.float64))


def test_where_most_rows_are_zero_all_become_zero_and_say_so() -> None:
    rows = torch.zeros(5, 3)
    rows[1] = 7
    result = Composed([ARC({"f": 1})], Mean()).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    assert result.direction.dense().tolist() == [0, 0, 0]
    assert [(v.accepted, v.reason) for v in result.verdicts[:2]] == [(True, ""), (False, "nothing of it is left")]


def test_half_of_the_updates_cannot_be_byzantine() -> None:
    with pytest.raises(RunFailed, match="at least 5 updates, the round has 4"):
        clipped(torch.ones(4, 2), 2)
