from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from covey.aggregation.weights import effective_shares
from covey.errors import LimitExceeded

weights = st.lists(st.floats(min_value=0, max_value=1e12, allow_subnormal=False), min_size=1, max_size=12)
positive = st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=1, max_size=12)
bounds = st.floats(min_value=0.01, max_value=1.0)
untimed = settings(deadline=None)  # the first example pays for torch's lazy imports


def bisected(declared: list[float], bound: float) -> list[float]:
    """The water level by bisection, the textbook way: sum min(bound, t w) = 1."""
    low, high = 0.0, 1e18
    for _ in range(400):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(bound, middle * w) for w in declared) < 1 else (low, middle)
    return [min(bound, high * w) for w in declared]


@untimed
@given(weights, bounds)
@example([1.0, 1.0, 1.0, 167403.0, 1e-304], 0.21875)
@example([1e308, 1e308, 1e-308], 0.4)
def test_shares_are_shares_and_bounded(declared: list[float], bound: float) -> None:
    shares = effective_shares(declared, "examples", bound)
    counted = sum(w > 0 for w in declared) or len(declared)
    assert shares.dtype == torch.float64
    assert math.isclose(float(shares.sum()), 1.0, rel_tol=1e-12)
    assert (shares >= 0).all()
    assert float(shares.max()) <= max(bound, 1 / counted) * (1 + 1e-12)
    assert all(share == 0 for share, w in zip(shares.tolist(), declared, strict=True) if w == 0 and any(declared))


@untimed
@given(positive, bounds)
def test_equals_the_bisected_water_level(declared: list[float], bound: float) -> None:
    wanted = bisected(declared, max(bound, 1 / len(declared)))
    assert effective_shares(declared, "examples", bound).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@untimed
@given(positive, bounds, st.randoms())
def test_follows_a_permutation_of_the_nodes(declared: list[float], bound: float, order: random.Random) -> None:
    shuffled = list(range(len(declared)))
    order.shuffle(shuffled)
    shares = effective_shares(declared, "examples", bound)
    turned = effective_shares([declared[i] for i in shuffled], "examples", bound)
    torch.testing.assert_close(turned, shares[shuffled], rtol=1e-12, atol=0)


@untimed
@given(positive)
def test_without_a_bound_shares_are_proportional(declared: list[float]) -> None:
    shares = effective_shares(declared, "examples", 1.0).tolist()
    assert shares == pytest.approx([w / sum(declared) for w in declared], rel=1e-12)


def test_an_absurd_claim_gets_the_bound_and_the_others_keep_their_proportions() -> None:
    shares = effective_shares([1e12, 10, 30], "examples", 0.5)
    assert shares.tolist() == pytest.approx([0.5, 0.125, 0.375])


def test_too_few_nodes_for_the_bound_get_equal_shares() -> None:
    assert effective_shares([5], "examples", 0.5).tolist() == [1.0]
    assert effective_shares([1, 9], "examples", 0.2).tolist() == pytest.approx([0.5, 0.5])
    assert effective_shares([1, 0, 9], "examples", 0.5).tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_equal_shares() -> None:
    assert effective_shares([1, 2, 5, 100], "equal", 0.1).tolist() == [0.25] * 4
    assert effective_shares([0, 0], "examples", 0.5).tolist() == [0.5, 0.5]
    assert effective_shares([], "examples", 0.5).shape == (0,)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("by", ["examples", "equal"])
def test_impossible_weights_are_refused(bad: float, by: str) -> None:
    with pytest.raises(LimitExceeded, match="row 1 declares"):
        effective_shares([1.0, bad], by)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [0.0, -0.5, 1.5])
def test_impossible_bounds_are_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="max_share"):
        effective_shares([1.0], "examples", bound)
