"""What ends a run before its last round (`[stop]`), but for its privacy: pure rules, asked between two steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StopRules:
    """`[stop]`, and by which metric.

    Attributes:
        metric: Its name, for the reason.
        goal: Which of its values are better.
        target: The run ends once a version has this value, or a better one; None: no such rule.
        patience: It ends after so many evaluations in a row that were no improvement; None: no such rule.
        min_delta: By how much more than this a value is better than the best before.
        ends_at: When it ends, by the machine's clock; None: no such rule.
        time_s: How long that is after its start, for the reason.
        sent_bytes: It ends once nodes have sent so many bytes of updates; None: no such rule.
    """

    metric: str = ""
    goal: Literal["max", "min"] = "max"
    target: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    ends_at: float | None = None
    time_s: float = 0.0
    sent_bytes: int | None = None

    @property
    def by_metric(self) -> bool:
        """Whether some rule goes by what versions are worth: then the next step waits until that is known."""
        return self.target is not None or self.patience is not None


NO_RULES = StopRules()


@dataclass(frozen=True)
class Distance:
    """How far a rule is from ending a run.

    Attributes:
        rule: Its key in `[stop]`.
        at: The best value so far, evaluations since the best one, bytes, or seconds; None: no value is known yet.
        limit: Where it ends the run.
    """

    rule: Literal["target", "patience", "bytes", "time_s"]
    at: float | None
    limit: float


class Stopping:
    """What is known of one run that its rules go by.

    Args:
        rules: The run's.
        values: Versions with their value of the metric, by the record, in order.
        sent_bytes: What nodes have sent, by the record.
    """

    def __init__(self, rules: StopRules, values: Iterable[tuple[int, float]] = (), sent_bytes: int = 0) -> None:
        self.rules = rules
        self._sent_bytes = sent_bytes
        self._reached: tuple[int, float] | None = None
        self._best: tuple[int, float] | None = None
        self._idle = 0
        """Evaluations since the best one."""
        for version, value in values:
            self.measured(version, value)

    def measured(self, version: int, value: float | None) -> None:
        """A version was evaluated; a metric that is missing, or no number, counts for nothing."""
        if value is None or not math.isfinite(value) or self._is_over:
            return
        sign = 1.0 if self.rules.goal == "max" else -1.0
        if self.rules.target is not None and sign * (value - self.rules.target) >= 0:
            self._reached = version, value
        if self._best is None or sign * (value - self._best[1]) > self.rules.min_delta:
            self._best, self._idle = (version, value), 0
        else:
            self._idle += 1

    def sent(self, count: int) -> None:
        """A step took updates of so many bytes."""
        self._sent_bytes += count

    def why(self, now: float) -> str:
        """Why the run ends before its next step, for people; empty: it goes on."""
        rules = self.rules
        if self._reached is not None:
            version, value = self._reached
            return f"[stop] target = {rules.target:g}: version {version} has {rules.metric} {value:g}"
        if self._best is not None and rules.patience is not None and self._idle >= rules.patience:
            version, value = self._best
            return (
                f"[stop] patience = {rules.patience}: since version {version}, with {rules.metric} {value:g}, "
                f"{self._idle} evaluations were no better"
            )
        if rules.sent_bytes is not None and self._sent_bytes >= rules.sent_bytes:
            return f"[stop] bytes = {rules.sent_bytes}: nodes have sent {self._sent_bytes} bytes of updates"
        if rules.ends_at is not None and now >= rules.ends_at:
            return f"[stop] time_s = {rules.time_s:g}: the run has had its time"
        return ""

    def distances(self, now: float) -> list[Distance]:
        """How far each of the rules is."""
        rules, best = self.rules, self._reached or self._best
        known = list[Distance]()
        if rules.target is not None:
            known.append(Distance("target", best[1] if best else None, rules.target))
        if rules.patience is not None:
            known.append(Distance("patience", float(self._idle), float(rules.patience)))
        if rules.sent_bytes is not None:
            known.append(Distance("bytes", float(self._sent_bytes), float(rules.sent_bytes)))
        if rules.ends_at is not None:
            known.append(Distance("time_s", rules.time_s - (rules.ends_at - now), rules.time_s))
        return known

    def wake_times(self) -> list[float]:
        """When its time is up, where there is such a rule."""
        return [] if self.rules.ends_at is None else [self.rules.ends_at]

    @property
    def _is_over(self) -> bool:
        """Whether a rule that goes by the metric has ended the run: what is measured later changes no reason."""
        is_tired = self.rules.patience is not None and self._idle >= self.rules.patience
        return self._reached is not None or is_tired
