"""One measurement, and what is done with several: means, intervals, and verdicts on claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from covey.client.sweeps.results import Mean


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        setting: Where methods are compared: results of one setting and seed are paired.
        method: What is compared.
        seed: Of model, data split, batches and the methods' random numbers.
    """

    setting: str
    method: str
    seed: int


Outcome = Mapping[str, float]
"""Measure to value; accuracies in percent."""
Outcomes = Mapping[Case, Outcome]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95 % confidence interval (infinite for one seed)."""

    mean: float
    half: float

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "x"
        return f"{self.mean:.1f}" + (f" ± {self.half:.1f}" if math.isfinite(self.half) else "")


def interval(values: Sequence[float]) -> Interval:
    """Of at least one value; by Student's t."""
    if not all(map(math.isfinite, values)):
        return Interval(math.nan, math.inf)
    mean = Mean.of(values)
    return Interval(mean.value, math.inf if mean.half is None else mean.half)


def values(outcomes: Outcomes, setting: str, method: str, measure: str = "accuracy") -> list[float]:
    """A method's values in a setting, by seed."""
    by_seed = {c.seed: o[measure] for c, o in outcomes.items() if (c.setting, c.method) == (setting, method)}
    return [by_seed[seed] for seed in sorted(by_seed)]


def difference(outcomes: Outcomes, setting: str, method: str, other: str, measure: str = "accuracy") -> Interval:
    """Mean of (one - other) over the seeds that both have: paired."""
    pairs = zip(values(outcomes, setting, method, measure), values(outcomes, setting, other, measure), strict=True)
    return interval([a - b for a, b in pairs])


def methods_of(outcomes: Outcomes, setting: str) -> list[str]:
    """The methods of a setting, in the order in which they were run."""
    return list(dict.fromkeys(case.method for case in outcomes if case.setting == setting))


def settings_of(outcomes: Outcomes) -> list[str]:
    """The settings, in the order in which they were run."""
    return list(dict.fromkeys(case.setting for case in outcomes))


def better(gain: Interval, least: float = 0.0) -> str:
    """The verdict on the claim that a difference is more than `least`, by its 95 % interval.

    Returns:
        `reproduced` if all of the interval is above, `not reproduced` if all of it is below, else `undecided`; a
        difference that is not finite (a method that diverged) is `undecided` too.
    """
    if not math.isfinite(gain.mean):
        return "undecided"
    if gain.mean - gain.half > least:
        return "reproduced"
    return "not reproduced" if gain.mean + gain.half < least else "undecided"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [" | ".join(map(str, row)) for row in (head, ["---"] * len(head), *rows)]
    return [f"| {line} |" for line in lines]
