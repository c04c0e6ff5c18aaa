from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.aggregation.centered_clip import CenteredClip
from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import LayoutError
from covey.testing.aggregators import AggregatorConformance

ROUND = AggregationContext(round=1, seed=0)


class TestCenteredClipConforms(AggregatorConformance):
    keeps_identical = False

    def make(self) -> Aggregator:
        return CenteredClip({"tau": 2.0})


class TestCenteredClipByTheMedianConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return CenteredClip()


class TestCenteredClipOfLargeRadiusConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return CenteredClip({"tau": 1e4, "iterations": 1})


def naive(rows: Tensor, center: Tensor, tau: float, iterations: int) -> Tensor:
    v = center.double()
    for _ in range(iterations):
        steps = []
        for row in rows.double():
            difference = row - v
            steps.append(difference * min(1.0, tau / max(float(difference.norm()), 1e-300)))
        v = v + torch.stack(steps).sum(0) / len(rows)
    return v


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 10**6), st.integers(1, 9), st.floats(0.1, 20), st.integers(1, 5), st.sampled_from([None, 0.0, 3.0])
)
def test_equals_the_naive_formula(seed: int, n: int, tau: float, iterations: int, center: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 40, generator=generator)
    at = torch.zeros(40) if center is None else center * torch.randn(40, generator=generator)
    rule = CenteredClip({"tau": tau, "iterations": iterations})
    result = rule.aggregate(UpdateMatrix.of(rows), {} if center is None else {"center": at}, ROUND)
    torch.testing.assert_close(result.direction.dense(), naive(rows, at, tau, iterations).float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(result.state["center"].dense(), result.direction.dense())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1e-6, 1.0, 1e9]))
def test_without_a_radius_it_is_the_median_distance_of_each_step(seed: int, n: int, scale: float) -> None:
    rows = torch.randn(n, 40, generator=torch.Generator().manual_seed(seed))
    rows[0] *= 100
    v = torch.zeros(40)
    for _ in range(3):
        v = naive(rows, v, statistics.median((row.double() - v).norm().item() for row in rows), 1)
    found = CenteredClip().aggregate(UpdateMatrix.of(rows * scale), {}, ROUND).direction.dense()
    torch.testing.assert_close(found / scale, v.float(), rtol=1e-4, atol=1e-5)


def test_no_update_moves_the_result_by_more_than_tau_over_n_a_step() -> None:
    rows = torch.randn(10, 40, generator=torch.Generator().manual_seed(1))
    wild = rows.clone()
    wild[3] = 1e15
    for tau in (0.5, 5.0):
        rule = CenteredClip({"tau": tau, "iterations": 1})
        plain, moved = (rule.aggregate(UpdateMatrix.of(x), {}, ROUND).direction.dense() for x in (rows, wild))
        assert float((plain - moved).norm()) <= 2 * tau / 10 * (1 + 1e-5)


def test_a_large_radius_is_the_mean_and_forgets_the_centre() -> None:
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(2))
    result = CenteredClip({"tau": 1e6}).aggregate(UpdateMatrix.of(rows), {"center": torch.full((40,), 7.0)}, ROUND)
    torch.testing.assert_close(result.direction.dense(), rows.mean(0), rtol=1e-5, atol=1e-5)
    assert [v.share for v in result.verdicts] == pytest.approx([1 / 6] * 6)


def test_it_converges_over_rounds_on_a_far_mean_in_spite_of_attackers() -> None:
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}
    for _ in range(60):
        rows = 20 + torch.randn(10, 5, generator=generator)
        rows[:2] = -1e4
        result = CenteredClip({"tau": 5.0, "iterations": 1}).aggregate(UpdateMatrix.of(rows), state, ROUND)
        state = {name: direction.dense() for name, direction in result.state.items()}
    assert float((state["center"] - 20).norm()) < 3


def test_verdicts_show_what_was_cut() -> None:
    rows = torch.zeros(4, 10)
    rows[3, 0] = 8.0
    verdicts = CenteredClip({"tau": 2.0, "iterations": 1}).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert verdicts[3].numbers == pytest.approx({"distance": 8.0, "factor": 0.25})
    assert verdicts[3].share == pytest.approx(0.25 / 4)
    assert verdicts[0].numbers == pytest.approx({"distance": 0.0, "factor": 1.0})


def test_result_and_kept_centre_may_be_walked_together() -> None:
    rows = torch.randn(4, 100, generator=torch.Generator().manual_seed(4))
    result = CenteredClip().aggregate(UpdateMatrix.of(rows), {}, ROUND)
    whole = CenteredClip().aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()
    for columns in (slice(0, 30), slice(30, 60), slice(10, 60), slice(60, 100)):
        assert torch.equal(result.direction.read(columns), whole[columns])
        assert torch.equal(result.state["center"].read(columns), whole[columns])


def test_a_centre_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutError, match="3 elements"):
        CenteredClip().aggregate(UpdateMatrix.of(torch.ones(2, 5)), {"center": torch.ones(3)}, ROUND)
