from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.aggregation.contract import AggregationContext, Aggregator
from covey.aggregation.krum import Krum, MultiKrum
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed, SpecError
from covey.testing.aggregators import AggregatorConformance, RobustConformance

ROUND = AggregationContext(round=1, seed=0)


class TestKrumConforms(RobustConformance):
    def make(self) -> Aggregator:
        return Krum({"f": 4})

    def kappa(self, n: int, f: int) -> float:
        return 6 * (1 + f / (n - 2 * f))


class TestMultiKrumConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return MultiKrum({"f": 2})


class TestMultiKrumOfTwoConforms(AggregatorConformance):
    def make(self) -> Aggregator:
        return MultiKrum({"f": 1, "m": 2, "neighbours": 3})


def naive_scores(rows: torch.Tensor, neighbours: int) -> list[float]:
    scores = []
    for i in range(len(rows)):
        others = [float((rows[i].double() - rows[j].double()).square().sum()) for j in range(len(rows)) if j != i]
        scores.append(sum(sorted(others)[:neighbours]))
    return scores


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(1, 6), st.sampled_from([0.0, 10.0]))
def test_equals_the_naive_formula(seed: int, f: int, extra: int, offset: float) -> None:
    n = 2 * f + 3 + extra
    rows = torch.randn(n, 30, generator=torch.Generator().manual_seed(seed)) + offset
    scores = naive_scores(rows, n - f - 2)
    order = sorted(range(n), key=lambda i: scores[i])
    krum = Krum({"f": f}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
    assert [v.numbers["score"] for v in krum.verdicts] == pytest.approx(scores, rel=1e-4)
    assert torch.equal(krum.direction.dense(), rows[order[0]])
    for m in (1, n - f - 2):
        found = MultiKrum({"f": f, "m": m}).aggregate(UpdateMatrix.of(rows), {}, ROUND)
        assert [i for i, v in enumerate(found.verdicts) if v.accepted] == sorted(order[:m])
        torch.testing.assert_close(found.direction.dense(), rows[order[:m]].mean(0), rtol=1e-5, atol=1e-6)


def test_neighbours_is_an_option_that_can_change_the_choice() -> None:
    # A close pair off the middle: with one neighbour it wins, with n - f - 2 = 4 the middle of the cluster does.
    points = torch.tensor([[0.0], [1.0], [2.1], [3.1], [6.0], [6.1]])
    by_default = Krum({"f": 0}).aggregate(UpdateMatrix.of(points), {}, ROUND)
    nearest = Krum({"f": 0, "neighbours": 1}).aggregate(UpdateMatrix.of(points), {}, ROUND)
    assert by_default.direction.dense().item() == pytest.approx(2.1)
    assert nearest.direction.dense().item() == pytest.approx(6.0)


def test_equal_scores_choose_the_earlier_row() -> None:
    rows = torch.tensor([[5.0], [1.0], [0.0]])
    assert Krum().aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense().item() == 1.0


def test_verdicts_have_reason_and_number() -> None:
    rows = torch.randn(6, 10, generator=torch.Generator().manual_seed(3))
    rows[4] += 100
    verdicts = Krum({"f": 1}).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert sum(v.accepted for v in verdicts) == 1
    assert not verdicts[4].accepted
    assert "3 nearest" in verdicts[4].reason
    assert verdicts[4].numbers["score"] > max(v.numbers["score"] for i, v in enumerate(verdicts) if i != 4)


@pytest.mark.parametrize("scale", [1e3, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("huge_at", [0, 5, 11])
def test_one_huge_row_does_not_hide_two_near_identical_attackers(scale: float, huge_at: int) -> None:
    # Relative to the huge row all others are the same in float32; relative to the base they are not.
    generator = torch.Generator().manual_seed(8)
    honest = torch.randn(9, 4000, generator=generator)
    pair = 3 * torch.randn(1, 4000, generator=generator) + 1e-4 * torch.randn(2, 4000, generator=generator)
    others = torch.cat([honest, pair])
    rows = torch.cat([others[:huge_at], scale * torch.randn(1, 4000, generator=generator), others[huge_at:]])
    attackers = {huge_at, *(i + (i >= huge_at) for i in (9, 10))}
    verdicts = Krum({"f": 3}).aggregate(UpdateMatrix.of(rows), {}, ROUND).verdicts
    assert not attackers & {i for i, v in enumerate(verdicts) if v.accepted}


def test_translation_moves_the_result_along() -> None:
    rows = torch.randn(9, 50, generator=torch.Generator().manual_seed(4))
    shift = torch.randn(50, generator=torch.Generator().manual_seed(5))
    for rule in (Krum({"f": 2}), MultiKrum({"f": 2})):
        plain = rule.aggregate(UpdateMatrix.of(rows), {}, ROUND).direction.dense()
        moved = rule.aggregate(UpdateMatrix.of(rows + shift), {}, ROUND).direction.dense()
        torch.testing.assert_close(moved, plain + shift, rtol=1e-5, atol=1e-5)


def test_the_least_numbers_of_updates() -> None:
    assert Krum({"f": 3}).min_updates() == 9
    assert Krum({"f": 0, "neighbours": 7}).min_updates() == 8
    assert MultiKrum({"f": 3, "m": 6}).min_updates() == 11
    with pytest.raises(RunFailed, match="at least 11 updates, the round has 10"):
        MultiKrum({"f": 3, "m": 6}).aggregate(UpdateMatrix.of(torch.ones(10, 2)), {}, ROUND)
    with pytest.raises(SpecError, match="neighbours"):
        Krum({"neighbours": 0})
