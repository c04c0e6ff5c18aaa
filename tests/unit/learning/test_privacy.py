from __future__ import annotations

import math
from typing import Any

import pytest

from covey.codecs.dp_sign import DpSign, DpSignOptions, gaussian_delta
from covey.learning.privacy import PrivacySpent, rounds_within, spent, spent_by
from covey.spec import PrivacySection, TrainingSection


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


def section(**changes: Any) -> PrivacySection:
    return PrivacySection.model_validate({"unit": "example", "clip": 1.0, "noise": 1.0, **changes})


def steps(number: int) -> TrainingSection:
    return TrainingSection(local_steps=number)


PUBLISHED = [
    # Sampling, noise, steps; epsilon of opacus 1.6.0 for delta 1e-5: its RDP accountant, and its PRV accountant.
    (0.01, 4.0, 10_000, 1.03549, 0.95694),
    (256 / 60_000, 1.1, 14_040, 2.59436, 2.38970),
    (0.05, 1.0, 200, 5.36764, 4.77624),
    (1.0, 2.0, 100, 35.08175, 33.11486),
]


@pytest.mark.parametrize(("sampling", "noise", "number", "renyi", "exact_epsilon"), PUBLISHED)
def test_noise_on_samples_spends_what_another_accountant_says(
    sampling: float, noise: float, number: int, renyi: float, exact_epsilon: float
) -> None:
    found = spent_by(section(sampling=sampling, noise=noise), steps(number), 1)
    assert found.epsilon == pytest.approx(exact_epsilon, rel=0.005)
    assert found.epsilon < renyi
    assert (found.delta, found.unit) == (1e-5, "example")


def test_abadis_own_example_is_an_upper_limit_and_strong_composition_a_far_one() -> None:
    """Figure 2 of the paper: q = 0.01, sigma = 4, 100 epochs: (1.26, 1e-5) by moments, (9.34, 1e-5) without them."""
    found = spent_by(section(sampling=0.01, noise=4.0), TrainingSection(local_epochs=100), 1)
    assert 0.9 < found.epsilon < 1.26


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_one_step_is_the_closed_form(epsilon: float) -> None:
    """Of (1 - q) N(0, s^2) + q N(1, s^2) against N(0, s^2), both ways: the odds grow with x, so delta is two tails."""
    q, s = 0.2, 0.8

    def tail(x: float) -> float:
        return math.erfc(x / math.sqrt(2)) / 2

    def place(odds: float) -> float:
        """Where the odds of the two are this."""
        return s * s * math.log((odds - 1 + q) / q) + 0.5

    x = place(math.exp(epsilon))
    added = (1 - q) * tail(x / s) + q * tail((x - 1) / s) - math.exp(epsilon) * tail(x / s)
    removed = 0.0
    if math.exp(-epsilon) > 1 - q:
        x = place(math.exp(-epsilon))
        removed = tail(-x / s) - math.exp(epsilon) * ((1 - q) * tail(-x / s) + q * tail((1 - x) / s))
    delta = max(added, removed)
    found = spent_by(section(sampling=q, noise=s, delta=delta), steps(1), 1)
    assert epsilon * 0.999 <= found.epsilon <= epsilon * 1.01 + 2e-3


def test_rounds_and_steps_are_the_same_to_the_account_and_nodes_are_counted_by_rounds() -> None:
    given = section(sampling=0.1)
    assert spent_by(given, steps(20), 3) == spent_by(given, steps(60), 1)
    assert spent_by(given, TrainingSection(local_epochs=2), 3) == spent_by(given, steps(60), 1)
    of_nodes = spent_by(section(unit="node"), steps(20), 3)
    assert of_nodes.epsilon == spent_by(section(), steps(1), 3).epsilon
    assert of_nodes.unit == "node"
    assert spent_by(given, steps(20), 0).epsilon == 0.0


@pytest.mark.parametrize(("epsilon", "rounds"), [(0.5, 0), (3.0, 3), (4.5, 4), (100.0, 9)])
def test_a_budget_lasts_for_the_rounds_that_spend_no_more(epsilon: float, rounds: int) -> None:
    asked = []

    def account(number: int) -> PrivacySpent:
        asked.append(number)
        return PrivacySpent(float(number), 1e-5)

    assert rounds_within(account, epsilon, 9) == rounds
    assert len(asked) <= 6
