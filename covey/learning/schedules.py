"""Per-round factors on the numbers of local training."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from covey.learning.section_plugins import SectionPlugin, make_in
from covey.options import PluginOptions
from covey.plugins import Kind
from covey.spec import Schedule


class FactorSchedule(SectionPlugin):
    """A factor that depends on the round (`[training.schedule.learning_rate] kind`)."""

    @abstractmethod
    def factor(self, since: int, last: int) -> float:
        """The factor `since` rounds after the warm-up.

        Args:
            since: Counts from 0.
            last: What `since` is in the run's last round; 0 where there is one round only.
        """


SCHEDULES = Kind("schedule", "covey.schedules", FactorSchedule, "training.schedule", "kind")


class FactorOptions(PluginOptions):
    """Keys of the schedule's section that Covey's own kinds use."""

    factor: Annotated[float, Field(gt=0)] = 1.0


class Constant(FactorSchedule):
    """`factor` in every round."""

    Options = FactorOptions
    section_keys = ("factor",)
    options: FactorOptions

    def factor(self, since: int, last: int) -> float:
        """`factor`."""
        return self.options.factor


class Exponential(Constant):
    """factor ** r in round r, from 0."""

    def factor(self, since: int, last: int) -> float:
        """Factor to the power of `since`."""
        return math.pow(self.options.factor, since)


class Step(FactorSchedule):
    """factor ** (r // every) in round r, from 0."""

    class Options(FactorOptions):
        """Keys of the schedule's section that `step` uses."""

        every: int = Field(default=1, ge=1)

    section_keys = ("factor", "every")
    options: Options

    def factor(self, since: int, last: int) -> float:
        """Factor to the power of `since // every`."""
        return math.pow(self.options.factor, since // self.options.every)


class Linear(Constant):
    """From 1 in the first round to `factor` in the last one, by equal steps."""

    def factor(self, since: int, last: int) -> float:
        """1 at 0, `factor` from `last` on."""
        return 1.0 + (self.options.factor - 1.0) * _done(since, last)


class Cosine(Constant):
    """From 1 in the first round to `factor` in the last one, along half a cosine."""

    def factor(self, since: int, last: int) -> float:
        """1 at 0, `factor` from `last` on."""
        final = self.options.factor
        return final + (1.0 - final) * (1.0 + math.cos(math.pi * _done(since, last))) / 2.0


def _done(since: int, last: int) -> float:
    return min(1.0, since / last) if last else 0.0


def factor(schedule: Schedule | None, round: int, rounds: int, at: str = SCHEDULES.section) -> float:
    """The factor in one round.

    With r = round - 1 - warmup and R = rounds - warmup: `constant` is `factor`; `exponential` is factor ** r;
    `step` is factor ** (r // every); `linear` and `cosine` go from 1 at r = 0 to `factor` at r = R - 1. In
    warm-up round w (from 0) it is (w + 1) / (warmup + 1) of the schedule's first value.

    Args:
        schedule: None stands for no schedule, that is 1.
        round: Counts from 1.
        rounds: How many rounds the run has.
        at: Where the schedule stands in the specification, for errors.

    Raises:
        PluginError: There is no such kind of schedule here.
        SpecError: An option is wrong.
    """
    if schedule is None:
        return 1.0
    kind = make_in(SCHEDULES, schedule.kind, schedule, at)
    since = round - 1 - schedule.warmup
    if since < 0:
        return kind.factor(0, 0) * round / (schedule.warmup + 1)
    return kind.factor(since, max(0, rounds - schedule.warmup - 1))
