from __future__ import annotations

import math
from typing import Any

import pytest

from covey.codecs.dp_sign import DpSign, DpSignOptions, gaussian_delta
from covey.learning.privacy import PrivacySpent, spent


def options(**changes: Any) -> DpSignOptions:
    return DpSign({"epsilon": 0.5, "delta": 1e-5, "clip": 4.0, **changes}).options


LAPLACE = {"epsilon": 0.3, "delta": 0.0, "mechanism": "laplace"}


def exact(given: DpSignOptions, rounds: int) -> float:
    """Epsilon of `rounds` Gaussian messages: they are one message with noise smaller by the root of their number."""
    sigma = given.noise / given.clip / math.sqrt(rounds)
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, sigma) > given.delta else (low, middle)
    return high


@pytest.mark.parametrize("rounds", [1, 10, 400])
@pytest.mark.parametrize("changes", [{}, {"mechanism": "analytic-gaussian", "epsilon": 2.0}])
def test_gaussian_messages_compose_to_the_exact_epsilon(rounds: int, changes: dict[str, Any]) -> None:
    given = options(**changes)
    found = spent(given.privacy, rounds)
    assert exact(given, rounds) * (1 - 1e-4) <= found.epsilon <= exact(given, rounds) * 1.01 + 1e-3
    assert found.delta == given.delta
    assert found.unit == "example"


def test_one_message_spends_what_it_says_or_less() -> None:
    assert spent(options().privacy, 1).epsilon <= 0.5
    analytic = options(mechanism="analytic-gaussian", epsilon=2.0)
    assert spent(analytic.privacy, 1).epsilon == pytest.approx(2.0, rel=1e-3)


def test_many_messages_spend_less_than_their_sum_and_more_than_fewer() -> None:
    assert spent(options().privacy, 50).epsilon < spent(options().privacy, 100).epsilon < 100 * 0.5


def test_the_clip_has_no_part_in_it() -> None:
    assert spent(options(clip=0.1).privacy, 10).epsilon == pytest.approx(spent(options(clip=40.0).privacy, 10).epsilon)


def test_laplace_messages_add_up_without_delta_and_less_with_one() -> None:
    given = options(**LAPLACE)
    assert spent(given.privacy, 100) == PrivacySpent(pytest.approx(30.0), 0.0)  # type: ignore[arg-type]
    with_delta = spent(given.privacy, 100, delta=1e-5)
    assert with_delta.delta == 1e-5
    # Advanced composition (Dwork and Roth, theorem 3.20) is an upper limit for what is possible.
    advanced = 0.3 * math.sqrt(2 * 100 * math.log(1e5)) + 100 * 0.3 * math.expm1(0.3)
    assert 5 < with_delta.epsilon < min(advanced, 30.0)


def test_nothing_sent_is_nothing_spent() -> None:
    assert spent(options().privacy, 0) == PrivacySpent(0.0, 0.0)


@pytest.mark.parametrize(("rounds", "delta"), [(-1, None), (1, 1.0), (1, -0.1), (1, 0.0)])
def test_what_makes_no_sense_is_refused(rounds: int, delta: float | None) -> None:
    with pytest.raises(ValueError, match="rounds with delta"):
        spent(options().privacy, rounds, delta)
