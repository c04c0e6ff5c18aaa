"""Covey's own local optimizers, partitions and schedules pass the suites, and the suites notice wrong ones."""

from typing import Any

import numpy as np
import pytest
import torch

from covey.learning.optimizers import LOCAL_OPTIMIZERS, SGD
from covey.learning.partition import PARTITIONS
from covey.learning.partitions import Iid
from covey.learning.schedules import SCHEDULES, Constant
from covey.plugins import Kind
from covey.testing import training

SUITES: dict[Kind[Any], type] = {
    LOCAL_OPTIMIZERS: training.LocalOptimizerConformance,
    PARTITIONS: training.PartitionConformance,
    SCHEDULES: training.ScheduleConformance,
}


def suite(kind, name):
    return type(f"Test_{name}", (SUITES[kind],), {"make": lambda self: kind.make(name)})


globals().update(
    {f"Test_{kind.name}_{plugin.name}": suite(kind, plugin.name) for kind in SUITES for plugin in kind.installed()}
)


class Forgetful(SGD):
    """Takes no steps."""

    def update(self, parameters, gradients, slots, age):
        pass


class Decaying(SGD):
    """Moves parameters that have no gradient."""

    def step(self):
        with torch.no_grad():
            for parameter in self._parameters:
                parameter.add_(0.01)
        super().step()


class Empty(Iid):
    """Gives the last part nothing."""

    def cut(self, examples, parts, rng):
        return [*np.array_split(rng.permutation(examples.count), parts - 1), np.empty(0, dtype=np.int64)]


class Random(Iid):
    """Depends on more than the seed."""

    def cut(self, examples, parts, rng):
        return super().cut(examples, parts, np.random.default_rng())


class Falling(Constant):
    """Falls below zero."""

    def factor(self, since, last):
        return 1.0 - since / 3


@pytest.mark.parametrize(
    ("base", "wrong", "test", "arguments"),
    [
        (training.LocalOptimizerConformance, Forgetful, "test_steps_go_down_and_are_repeatable", ()),
        (training.LocalOptimizerConformance, Decaying, "test_a_parameter_without_a_gradient_is_left_out", ()),
        (training.PartitionConformance, Empty, "test_parts_are_disjoint_and_complete_and_none_is_empty", (1,)),
        (training.PartitionConformance, Random, "test_depends_on_the_seed_only", ()),
        (training.ScheduleConformance, Falling, "test_factors_are_finite_and_not_negative", (10,)),
    ],
)
def test_a_wrong_one_is_noticed(base, wrong, test, arguments):
    made = type("Suite", (base,), {"make": lambda self: wrong()})()
    with pytest.raises(AssertionError):
        getattr(made, test)(*arguments)
