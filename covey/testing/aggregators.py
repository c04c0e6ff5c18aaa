"""What every aggregator and pre-aggregator must keep, as tests that the author of one inherits.

    class TestMine(AggregatorConformance):
        def make(self) -> Aggregator:
            return Mine({"f": 2})

Override `updates` if the rule needs rows of another kind; class attributes say which property the rule does
not claim. A rule with a known robustness coefficient inherits `RobustConformance` instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from covey.aggregation.contract import Aggregate, AggregationContext, Aggregator, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import CoveyError, RunFailed, SpecError
from covey.vectors import Vector, spans

TOLERANCE = 1e-6


class QuadraticRoot:
    """Trusted data of the smallest learning problem: the loss is half the squared distance of the step to `target`.

    Args:
        target: float32 `[d]`; also what an honest node with these data would send.
    """

    def __init__(self, target: Tensor) -> None:
        self._target = target

    def update(self) -> Tensor:
        """The target, float32 `[d]`."""
        return self._target

    def loss(self, step: Vector | None) -> float:
        """Half the squared distance of the step (None: zero) to the target."""
        at = torch.zeros_like(self._target) if step is None else step.dense()
        return float((at - self._target).double().square().sum() / 2)


class AggregatorConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the rule."""

    permutation_invariant: ClassVar[bool] = True
    """The direction does not depend on the order of rows (a rule that draws by row index may say False)."""
    keeps_identical: ClassVar[bool] = True
    """Updates that are all the same vector give that vector (rules that clip or send signs may say False)."""
    context: ClassVar[AggregationContext] = AggregationContext(round=1, seed=7)

    @abstractmethod
    def make(self) -> Aggregator:
        """The rule under test."""

    def updates(self, aggregator: Aggregator, d: int = 1000) -> UpdateMatrix:
        """A round: honest-looking rows around a common vector, float32 `[n, d]`, with unequal weights."""
        generator = torch.Generator().manual_seed(3)
        n = aggregator.min_updates() + 4
        rows = torch.randn(d, generator=generator) + 0.1 * torch.randn(n, d, generator=generator)
        weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
        return UpdateMatrix.of(rows, weights=(weights / weights.sum()).tolist())

    def context_of(self, updates: UpdateMatrix) -> AggregationContext:
        """The round in which these updates came, with trusted data near the first of them if the rule needs some."""
        if not self.make().needs_root or not updates.n:
            return self.context
        noise = torch.randn(updates.d, generator=torch.Generator().manual_seed(11))
        return replace(self.context, root=QuadraticRoot(updates.row(0).clone() + 0.1 * noise))

    def aggregate(self, updates: UpdateMatrix) -> Aggregate:
        """What a fresh rule makes of the updates in a first round."""
        return self.make().aggregate(updates, {}, self.context_of(updates))

    def test_refuses_too_few_updates(self) -> None:
        """One update less than `min_updates` is refused, with that number in the message."""
        aggregator = self.make()
        full = self.updates(aggregator)
        least = aggregator.min_updates()
        assert least >= 1
        few = UpdateMatrix(full.rows[: least - 1])
        with pytest.raises(CoveyError, match=str(least)):
            aggregator.aggregate(few, {}, self.context_of(few))
        enough = UpdateMatrix(full.rows[:least])
        assert aggregator.aggregate(enough, {}, self.context_of(enough)).direction.d == full.d

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        with pytest.raises(SpecError, match="no_such_option"):
            type(self.make())({"no_such_option": 1})

    def test_direction_is_finite_float32_of_the_rows_length(self) -> None:
        """The direction has the form that the contract says."""
        updates = self.updates(self.make())
        direction = self.aggregate(updates).direction
        block = direction.read(slice(10, 30))
        assert direction.d == updates.d
        assert block.dtype == torch.float32
        assert block.shape == (20,)
        assert direction.dense().isfinite().all()

    def test_every_node_gets_one_verdict_in_row_order(self) -> None:
        """Verdicts are complete, and a rejection has its reason."""
        updates = self.updates(self.make())
        verdicts = self.aggregate(updates).verdicts
        assert tuple(verdict.node for verdict in verdicts) == updates.nodes
        assert all(verdict.accepted or verdict.reason for verdict in verdicts)
        assert all(verdict.accepted or verdict.share == 0 for verdict in verdicts)
        assert all(0 <= verdict.share <= 1 for verdict in verdicts)

    def test_block_size_does_not_change_the_result(self) -> None:
        """A rule works on any cut into blocks."""
        updates = self.updates(self.make())
        whole = self.aggregate(updates).direction.read(slice(0, updates.d)).clone()
        for width in (1, 17, 256):
            _same(self.aggregate(updates).direction.dense(width), whole)

    def test_blocks_may_be_asked_for_in_any_order_and_again(self) -> None:
        """A block depends on its columns only."""
        updates = self.updates(self.make())
        direction = self.aggregate(updates).direction
        whole = direction.dense()
        for columns in reversed(spans(updates.d, 64)):
            _same(direction.read(columns), whole[columns])

    def test_the_same_round_twice_is_the_same_to_the_bit(self) -> None:
        """A rule is deterministic."""
        updates = self.updates(self.make())
        first, second = self.aggregate(updates), self.aggregate(updates)
        assert torch.equal(first.direction.dense(), second.direction.dense())
        assert first.verdicts == second.verdicts

    def test_rows_are_not_modified(self) -> None:
        """Rows are the spooled files: read-only."""
        updates = self.updates(self.make())
        before = updates.dense()
        self.aggregate(updates).direction.dense()
        assert torch.equal(updates.dense(), before)

    def test_order_of_rows_does_not_matter(self) -> None:
        """Permuting the rows changes neither the direction nor who is accepted."""
        if not self.permutation_invariant:
            pytest.skip("the rule does not claim it")
        updates = self.updates(self.make())
        turned = UpdateMatrix(updates.rows[::-1])
        context = self.context_of(updates)
        first, second = self.make().aggregate(updates, {}, context), self.make().aggregate(turned, {}, context)
        _same(second.direction.dense(), first.direction.dense())
        accepted = {v.node for v in first.verdicts if v.accepted}
        assert {v.node for v in second.verdicts if v.accepted} == accepted

    def test_identical_updates_give_that_update(self) -> None:
        """Unanimous nodes get their way."""
        if not self.keeps_identical:
            pytest.skip("the rule does not claim it")
        n = self.make().min_updates() + 4
        vector = torch.randn(100, generator=torch.Generator().manual_seed(5))
        _same(self.aggregate(UpdateMatrix.of(vector.repeat(n, 1))).direction.dense(), vector)

    def test_state_has_the_names_and_the_form_that_the_rule_says(self) -> None:
        """What a rule keeps is written as vectors of the rows' length, and given back in the next round."""
        updates = self.updates(self.make())
        kept = self.aggregate(updates).state
        assert set(kept) == set(self.make().state_names)
        state = {name: direction.dense() for name, direction in kept.items()}
        assert all(len(vector) == updates.d and vector.isfinite().all() for vector in state.values())
        again = self.make().aggregate(updates, state, replace(self.context_of(updates), round=2))
        assert again.direction.dense().isfinite().all()
        assert set(again.state) == set(state)

    def test_without_the_trusted_data_that_it_needs_it_refuses(self) -> None:
        """A rule says so rather than trust somebody else."""
        if not self.make().needs_root:
            pytest.skip("the rule needs none")
        with pytest.raises(RunFailed, match="trusted data"):
            self.make().aggregate(self.updates(self.make()), {}, self.context)

    @pytest.mark.parametrize("case", ["zero", "one zero", "one huge", "half huge", "identical", "tiny", "huge"])
    def test_no_finite_update_makes_a_number_that_is_not(self, case: str) -> None:
        """Rows of zeros, of 1e18 and of 1e-18, alone and together, give finite directions, shares and numbers."""
        updates = UpdateMatrix.of(_extreme(self.make().min_updates() + 4, case))
        aggregate = self.aggregate(updates)
        assert aggregate.direction.dense().isfinite().all()
        for verdict in aggregate.verdicts:
            assert 0 <= verdict.share <= 1
            assert all(math.isfinite(number) for number in verdict.numbers.values())


class RobustConformance(AggregatorConformance):
    """For a rule that is (f, kappa)-robust: ||F(x) - mean_S||^2 <= kappa x mean over S of ||x_i - mean_S||^2.

    S is any n - f of the rows (Allouah et al., "Fixing by Mixing", AISTATS 2023, arXiv 2302.01772, Definition 2).
    """

    n: ClassVar[int] = 17
    """Rows of the attacked rounds."""
    f: ClassVar[int] = 4
    """How many of them are the attackers'; the rule that `make` gives is to withstand so many."""

    @abstractmethod
    def kappa(self, n: int, f: int) -> float:
        """The coefficient for which the rule is known to be robust."""

    @pytest.mark.parametrize("seed", range(40))
    def test_honest_updates_bound_what_attackers_can_do(self, seed: int) -> None:
        """Attacks of random kind and size never move the result farther than the coefficient allows."""
        f = self.f
        generator = torch.Generator().manual_seed(seed)
        honest = torch.randn(self.n - f, 20, generator=generator) + torch.randn(20, generator=generator)
        rows = torch.cat([honest, _attack(honest, f, seed, generator)])[torch.randperm(self.n, generator=generator)]
        result = self.aggregate(UpdateMatrix.of(rows)).direction.dense().double()
        middle = honest.double().mean(0)
        spread = (honest.double() - middle).square().sum(1).mean()
        assert (result - middle).square().sum() <= self.kappa(self.n, f) * spread


class PreAggregatorConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the pre-aggregator."""

    context: ClassVar[AggregationContext] = AggregationContext(round=1, seed=7)

    @abstractmethod
    def make(self) -> PreAggregator:
        """The pre-aggregator under test."""

    def updates(self, n: int, d: int = 300) -> UpdateMatrix:
        """A round of n rows, float32 `[n, d]`."""
        return UpdateMatrix.of(torch.randn(n, d, generator=torch.Generator().manual_seed(n)))

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        with pytest.raises(SpecError, match="no_such_option"):
            type(self.make())({"no_such_option": 1})

    @pytest.mark.parametrize("wanted", [1, 2, 5, 12])
    def test_rows_needed_are_enough_and_not_too_many(self, wanted: int) -> None:
        """So many updates give the wanted rows; one fewer does not, or is refused."""
        needed = self.make().rows_needed(wanted)
        assert len(self.make().weights(self.updates(needed), self.context)) >= wanted
        try:
            fewer = len(self.make().weights(self.updates(needed - 1), self.context))
        except RunFailed:
            return
        assert fewer < wanted

    def test_mixed_rows_are_means(self) -> None:
        """Weights are float64 `[m, n]` and not negative, and every update has a part.

        They sum to one in each row; or each row is an update of its own, made shorter.
        """
        updates = self.updates(self.make().rows_needed(9))
        weights = self.make().weights(updates, self.context)
        assert weights.dtype == torch.float64
        assert weights.shape[1] == updates.n
        assert (weights >= 0).all()
        assert (weights.sum(0) > 0).all()
        if weights.shape[0] == weights.shape[1] and torch.equal(weights, weights.diagonal().diag()):
            assert (weights <= 1).all()
        else:
            torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=torch.float64))

    def test_the_same_round_twice_is_the_same(self) -> None:
        """Randomness comes from the seed and the round."""
        updates = self.updates(self.make().rows_needed(9))
        weights = [self.make().weights(updates, self.context) for _ in range(2)]
        assert torch.equal(*weights)

    def test_rows_are_not_modified(self) -> None:
        """Rows are the spooled files: read-only."""
        updates = self.updates(self.make().rows_needed(9))
        before = updates.dense()
        self.make().weights(updates, self.context)
        assert torch.equal(updates.dense(), before)

    @pytest.mark.parametrize("case", ["zero", "one zero", "one huge", "half huge", "identical", "tiny", "huge"])
    def test_extreme_rows_give_finite_weights(self, case: str) -> None:
        """Rows of zeros, of 1e18 and of 1e-18, alone and together."""
        updates = UpdateMatrix.of(_extreme(self.make().rows_needed(5) + 4, case))
        assert self.make().weights(updates, self.context).isfinite().all()


def _extreme(n: int, case: str) -> Tensor:
    rows = torch.randn(n, 50, generator=torch.Generator().manual_seed(2))
    if case == "zero":
        rows.zero_()
    elif case == "one zero":
        rows[0] = 0
    elif case == "one huge":
        rows[0] *= 1e18
    elif case == "half huge":
        rows[::2] = 1e18
    elif case == "identical":
        rows[:] = rows[0]
    else:
        rows *= 1e18 if case == "huge" else 1e-18
    return rows


def _attack(honest: Tensor, f: int, seed: int, generator: torch.Generator) -> Tensor:
    """The rows of f attackers who see the honest rows, float32 `[f, d]`: five kinds in turn, of random size."""
    middle, spread = honest.mean(0), honest.std(0)
    size = 10.0 ** float(torch.rand(1, generator=generator) * 4 - 1)
    kinds = (
        middle - size * spread,
        -size * middle,
        honest[int(torch.randint(len(honest), (1,), generator=generator))],
        middle + size * torch.randn(f, honest.shape[1], generator=generator),
        middle
        + spread.norm() * torch.nn.functional.normalize(torch.randn(honest.shape[1], generator=generator), dim=0),
    )
    return kinds[seed % len(kinds)].expand(f, -1).clone()


def _same(value: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(value, wanted, rtol=TOLERANCE, atol=TOLERANCE)
