"""What every local optimizer, partition and schedule must keep, as tests that the author of one inherits.

class TestMine(LocalOptimizerConformance):
def make(self) -> LocalOptimizer:
return Mine({"beta": 0.9})
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from covey.errors import SpecError
from covey.learning.optimizers import LocalOptimizer
from covey.learning.partition import Examples, Partition
from covey.learning.schedules import FactorSchedule
from covey.plugins import Pluggable


def _require_unknown_options_refused(plugin: Pluggable) -> None:
    with pytest.raises(SpecError, match="no_such_option"):
        type(plugin)({"no_such_option": 1})


class LocalOptimizerConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the optimizer."""

    learning_rate = 0.01

    @abstractmethod
    def make(self) -> LocalOptimizer:
        """The optimizer under test, before `begin`."""

    def trained(self, steps: int, weight_decay: float = 0.0) -> list[Tensor]:
        """Parameters of |x - 1|^2, from zero, after so many steps; the last one has a gradient in every other step."""
        parameters = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]
        optimizer = self.make()
        optimizer.begin(parameters, self.learning_rate, weight_decay)
        for step in range(steps):
            for parameter in parameters[: 1 + step % 2]:
                (parameter - 1).square().sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert all(parameter.grad is None for parameter in parameters)
        return [parameter.detach() for parameter in parameters]

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        _require_unknown_options_refused(self.make())

    def test_steps_go_down_and_are_repeatable(self) -> None:
        """The loss falls, and the same steps from new objects give the same bits."""
        first, again = self.trained(20), self.trained(20)
        for parameter, same in zip(first, again, strict=True):
            assert torch.equal(parameter, same)
            assert ((parameter - 1).abs() < 1).all()

    def test_a_parameter_without_a_gradient_is_left_out(self) -> None:
        """It stays as it is, whatever the weight decay."""
        assert not self.trained(1, weight_decay=0.1)[1].any()

    def test_frozen_parameters_stay(self) -> None:
        """Those that need no gradient are ignored."""
        frozen, free = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
        optimizer = self.make()
        optimizer.begin([frozen, free], self.learning_rate, 0.1)
        (frozen * free).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert torch.equal(frozen, torch.ones(2))
        assert not torch.equal(free, torch.ones(2))


class PartitionConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the partition."""

    @abstractmethod
    def make(self) -> Partition:
        """The partition under test; it must be able to cut 240 examples of 8 labels and 40 owners into 5 parts."""

    def cut(self, seed: int) -> list[list[int]]:
        """240 examples in 5 parts."""
        numbers = np.arange(240, dtype=np.int64)
        pieces = self.make().cut(Examples(240, numbers % 8, numbers // 6), 5, np.random.default_rng(seed))
        return [sorted(piece.tolist()) for piece in pieces]

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        _require_unknown_options_refused(self.make())

    @pytest.mark.parametrize("seed", range(5))
    def test_parts_are_disjoint_and_complete_and_none_is_empty(self, seed: int) -> None:
        """Unless every part is everything."""
        parts = self.cut(seed)
        assert len(parts) == 5
        if self.make().whole:
            assert parts == [list(range(240))] * 5
        else:
            assert sorted(index for part in parts for index in part) == list(range(240))
            assert all(parts)

    def test_depends_on_the_seed_only(self) -> None:
        """Every node cuts for itself, and they must agree."""
        assert self.cut(3) == self.cut(3)


class ScheduleConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the schedule."""

    @abstractmethod
    def make(self) -> FactorSchedule:
        """The schedule under test."""

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        _require_unknown_options_refused(self.make())

    @pytest.mark.parametrize("rounds", [1, 2, 10, 1000])
    def test_factors_are_finite_and_not_negative(self, rounds: int) -> None:
        """In every round, and in rounds beyond the last one."""
        schedule = self.make()
        factors = [schedule.factor(since, rounds - 1) for since in range(rounds + 2)]
        assert all(math.isfinite(factor) and factor >= 0 for factor in factors)
        assert factors == [self.make().factor(since, rounds - 1) for since in range(rounds + 2)]
