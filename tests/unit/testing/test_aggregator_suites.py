"""The suites for rules must notice rules that are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from covey.aggregation.bucketing import Bucketing
from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PreAggregator, Verdict
from covey.aggregation.matrix import UpdateMatrix
from covey.aggregation.mean import Mean
from covey.errors import RunFailed
from covey.testing import aggregators
from covey.testing.aggregators import QuadraticRoot
from covey.vectors import TensorVector


class Unnormed(Mean):
    """Divides by the rows' norms: nothing but NaN for rows of zero."""

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        if not updates.n:
            raise RunFailed("needs 1")
        rows = updates.dense()
        verdicts = tuple(Verdict(node, "accepted", share=1 / updates.n) for node in updates.nodes)
        return Aggregate(TensorVector((rows / rows.norm(dim=1, keepdim=True)).mean(0)), verdicts)


class First(Mean):
    """Takes the first row."""

    def aggregate(self, updates: UpdateMatrix, state: Mapping[str, Tensor], context: AggregationContext) -> Aggregate:
        result = super().aggregate(updates, state, context)
        return Aggregate(TensorVector(updates.row(0)), result.verdicts)


class Forgetful(Mean):
    """Says that it keeps something, and does not."""

    state_names = ("momentum",)


class Untrusting(Mean):
    """Says that it needs trusted data, and does without."""

    needs_root = True


def suite(rule: type[Aggregator], base: type = aggregators.AggregatorConformance) -> object:
    class Suite(base):  # type: ignore[misc]
        def make(self) -> Aggregator:
            return rule()

        def kappa(self, n: int, f: int) -> float:
            return 1.0

    return Suite()


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        (First, "test_order_of_rows_does_not_matter"),
        (Unnormed, "test_identical_updates_give_that_update"),
        (Forgetful, "test_state_has_the_names_and_the_form_that_the_rule_says"),
    ],
)
def test_a_wrong_rule_fails(rule: type[Aggregator], test: str) -> None:
    getattr(suite(Mean), test)()
    with pytest.raises(AssertionError):
        getattr(suite(rule), test)()


def test_numbers_that_are_not_finite_fail() -> None:
    suite(Mean).test_no_finite_update_makes_a_number_that_is_not("zero")  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        suite(Unnormed).test_no_finite_update_makes_a_number_that_is_not("zero")  # type: ignore[attr-defined]


def test_a_rule_that_ignores_its_need_for_trusted_data_fails() -> None:
    with pytest.raises(pytest.fail.Exception):
        suite(Untrusting).test_without_the_trusted_data_that_it_needs_it_refuses()  # type: ignore[attr-defined]


def test_the_mean_is_not_robust() -> None:
    robust = suite(Mean, aggregators.RobustConformance)
    failed = 0
    for seed in range(40):
        try:
            robust.test_honest_updates_bound_what_attackers_can_do(seed)  # type: ignore[attr-defined]
        except AssertionError:
            failed += 1
    assert failed > 10


class Doubling(Bucketing):
    """Sums its buckets instead of averaging them."""

    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        return (super().weights(updates, context) > 0).double()


class Greedy(Bucketing):
    """Asks for more updates than it needs."""

    def rows_needed(self, wanted: int) -> int:
        return 3 * wanted


@pytest.mark.parametrize(
    ("pre", "test", "arguments"),
    [(Doubling, "test_mixed_rows_are_means", ()), (Greedy, "test_rows_needed_are_enough_and_not_too_many", (5,))],
)
def test_a_wrong_pre_aggregator_fails(pre: type[PreAggregator], test: str, arguments: tuple[int, ...]) -> None:
    for made, wrong in ((Bucketing, False), (pre, True)):

        class Suite(aggregators.PreAggregatorConformance):
            def make(self, made: type[PreAggregator] = made) -> PreAggregator:
                return made()

        if wrong:
            with pytest.raises(AssertionError):
                getattr(Suite(), test)(*arguments)
        else:
            getattr(Suite(), test)(*arguments)


def test_the_root_of_a_quadratic_problem() -> None:
    root = QuadraticRoot(torch.tensor([3.0, 4.0]))
    assert root.loss(None) == 12.5
    assert root.loss(TensorVector(torch.tensor([3.0, 0.0]))) == 8.0
    assert root.loss(TensorVector(root.update())) == 0.0
