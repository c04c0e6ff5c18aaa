from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.zeno import Zeno
from covey.errors import RunFailed
from covey.testing.aggregators import AggregatorConformance, QuadraticRoot
from covey.vectors import Vector


class TestZenoConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return Zeno({"f": 3})


class BoundedRoot(QuadraticRoot):
    """A model that overflows: the loss is not a number once a step is longer than 100."""

    def loss(self, step: Vector | None) -> float:
        far = step is not None and float(step.dense().norm()) > 100
        return float("nan") if far else super().loss(step)


def aggregate(
    rows: torch.Tensor, root: QuadraticRoot, f: int, rho: float | None = 0.0005, learning_rate: float = 1.0
) -> Aggregate:
    context = AggregationContext(round=1, seed=0, root=root, learning_rate=learning_rate)
    return Zeno({"f": f, "rho": rho}).aggregate(UpdateMatrix.of(rows), {}, context)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 6), st.sampled_from([0.0, 0.01, 0.5]), st.sampled_from([0.1, 1.0]))
def test_equals_the_naive_formula(seed: int, f: int, rho: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(20, generator=generator)
    rows = torch.randn(7, 20, generator=generator) * 2 + 0.5 * target
    scores = []
    for row in rows.double():
        after = (gamma * row - target.double()).square().sum() / 2
        scores.append(float(target.double().square().sum() / 2 - after - rho * row.square().sum()))
    best = sorted(range(7), key=lambda i: -scores[i])[: 7 - f]
    result = aggregate(rows, QuadraticRoot(target), f, rho, gamma)
    assert [i for i, v in enumerate(result.verdicts) if v.accepted] == sorted(best)
    assert [v.numbers["score"] for v in result.verdicts] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    torch.testing.assert_close(result.direction.dense(), rows[best].mean(0), rtol=1e-5, atol=1e-5)


def test_one_honest_update_is_found_among_attackers() -> None:
    target = torch.randn(30, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([-10 * target.repeat(4, 1), 0.9 * target[None], 100 * torch.ones(4, 30)])
    result = aggregate(rows, QuadraticRoot(target), f=8)
    torch.testing.assert_close(result.direction.dense(), 0.9 * target)
    assert "f lowest" in result.verdicts[0].reason
    assert result.verdicts[0].numbers["gain"] < 0 < result.verdicts[4].numbers["gain"]


def test_a_row_that_makes_the_loss_no_number_is_never_used() -> None:
    target = torch.ones(4)
    rows = torch.stack([0.5 * target, torch.full((4,), 1e6), -target])
    result = aggregate(rows, BoundedRoot(target), f=0)
    assert [v.accepted for v in result.verdicts] == [True, False, True]
    assert "would not be finite" in result.verdicts[1].reason
    assert result.verdicts[1].numbers == {}
    torch.testing.assert_close(result.direction.dense(), -0.25 * target)
    nothing = aggregate(rows[1:2], BoundedRoot(target), f=0)
    assert torch.equal(nothing.direction.dense(), torch.zeros(4))
    assert not nothing.verdicts[0].accepted


def test_by_default_rho_follows_the_learning_rate() -> None:
    rows = torch.randn(6, 20, generator=torch.Generator().manual_seed(5))
    for gamma in (0.1, 2.0):
        default, named = (aggregate(rows, QuadraticRoot(torch.ones(20)), 1, rho, gamma) for rho in (None, gamma / 200))
        assert default.verdicts == named.verdicts


def test_equal_scores_keep_the_earlier_rows() -> None:
    result = aggregate(torch.ones(4, 3), QuadraticRoot(torch.ones(3)), f=2)
    assert [v.accepted for v in result.verdicts] == [True, True, False, False]


def test_without_attackers_it_is_the_mean() -> None:
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(4))
    found = aggregate(rows, QuadraticRoot(torch.ones(20)), f=0).direction.dense()
    torch.testing.assert_close(found, rows.mean(0), rtol=1e-6, atol=1e-6)


def test_it_needs_more_than_f_updates() -> None:
    with pytest.raises(RunFailed, match="at least 4 updates, the round has 3"):
        aggregate(torch.ones(3, 3), QuadraticRoot(torch.ones(3)), f=3)
