"""Decides what a sweep does next: a pure state machine, which is told events and says what to do.

`decide` gives the next decision, which its caller records, and then tells it; `work` says what is to be measured. All
follows from the events that it was told: told them again, it is where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean
from typing import Literal

from covey.client.sweeps.events import Asked, Decided, Event, Measured
from covey.client.sweeps.proposals import Space, Tried, explored
from covey.client.sweeps.specification import Halving, Params, Population
from covey.errors import StoreError
from covey.seeds import derive_seed

Propose = Callable[[int, Sequence[Tried]], Params]
"""The values of a trial, from its number and what is known of those before it."""


@dataclass(frozen=True)
class Plan:
    """The numbers of a sweep.

    Attributes:
        trials: How many.
        seeds: A trial is measured with each.
        rungs: After how many rounds trials are measured, in order; the last one is a trial's end.
        highest: The highest value is the best one; else the lowest.
        unit: Of what rungs are counted in.
        concurrency: How many trials run at a time.
        budget: No trial is begun after so many rounds in all; None: there is no limit.
        prune: Who goes on beyond a rung; None: everybody does.
        space: The values, for a population.
        seed: Of the population's choices.
    """

    trials: int
    seeds: tuple[int, ...]
    rungs: tuple[int, ...]
    highest: bool
    unit: str = "rounds"
    concurrency: int = 1
    budget: int | None = None
    prune: Halving | Population | None = None
    space: Space = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, order=True)
class Work:
    """Something to be measured: one seed of a trial, to the end of a rung."""

    rung: int
    trial: int
    seed: int
    params: Params = field(compare=False)
    source: int | None = field(default=None, compare=False)
    """Of a population: the member whose model of the rung before it begins with; None: the run's own."""


@dataclass
class Trial:
    """One trial, as far as it is known."""

    number: int
    params: Params
    state: Literal["running", "pruned", "completed", "failed"] = "running"
    rung: int = 0
    """Where it is."""
    source: int | None = None
    measured: dict[tuple[int, int], Measured] = field(default_factory=dict)
    """By rung and seed."""
    failed: dict[tuple[int, int], str] = field(default_factory=dict)
    decided: list[Decided] = field(default_factory=list)
    history: list[Params] = field(default_factory=list)
    """Of each rung that it began."""

    def values_at(self, rung: int) -> dict[int, float]:
        """Seed to value."""
        return {seed: item.value for (at, seed), item in self.measured.items() if at == rung}

    def mean_at(self, rung: int) -> float | None:
        """The mean over seeds; None where one has no value."""
        values = self.values_at(rung)
        return fmean(values[seed] for seed in sorted(values)) if values and not self._fails_at(rung) else None

    def is_measured(self, seeds: Sequence[int]) -> bool:
        """Whether nothing is to be waited for at its rung."""
        return all((self.rung, seed) in self.measured or (self.rung, seed) in self.failed for seed in seeds)

    def why_failed(self) -> str:
        """Why it has no value at its rung."""
        return "; ".join(f"seed {seed}: {why}" for (at, seed), why in sorted(self.failed.items()) if at == self.rung)

    def _fails_at(self, rung: int) -> bool:
        return any(at == rung for at, _ in self.failed)


class SweepMachine:
    """One sweep.

    Args:
        plan: Its numbers.
        propose: Chooses values.
    """

    def __init__(self, plan: Plan, propose: Propose) -> None:
        self.plan, self._propose = plan, propose
        self.trials: list[Trial] = []

    # -- what it is told ------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take what happened.

        Raises:
            StoreError: It cannot have happened: the record is another sweep's, or damaged.
        """
        if isinstance(event, Asked):
            self._require(event.trial == len(self.trials), event)
            self.trials.append(Trial(event.trial, event.params, history=[event.params]))
            return
        self._require(event.trial < len(self.trials), event)
        trial = self.trials[event.trial]
        self._require(trial.state == "running" and event.rung == trial.rung, event)
        if isinstance(event, Decided):
            self._decided(trial, event)
            return
        key = event.rung, event.seed
        self._require(event.seed in self.plan.seeds and key not in trial.measured and key not in trial.failed, event)
        if isinstance(event, Measured):
            trial.measured[key] = event
        else:
            trial.failed[key] = event.reason

    def _decided(self, trial: Trial, event: Decided) -> None:
        trial.decided.append(event)
        if event.decision != "on" and event.decision != "replaced":
            trial.state = event.decision
            return
        trial.rung += 1
        trial.source = trial.number if event.source is None else event.source
        trial.params = event.params if event.params is not None else trial.params
        trial.history.append(trial.params)

    @staticmethod
    def _require(possible: bool, event: Event) -> None:
        if not possible:
            raise StoreError(f"the sweep's record says what cannot have happened: {event}")

    # -- what it says ---------------------------------------------------------------------------------------------

    def decide(self) -> Asked | Decided | None:
        """The next decision; None: something is to be measured first, or all is done."""
        ready = [trial for trial in self._running if trial.is_measured(self.plan.seeds)]
        if isinstance(self.plan.prune, Population):
            ready = ready if self._generation_is_whole() else []
        if ready:
            return self._verdict(min(ready, key=lambda trial: (trial.rung, trial.number)))
        number = len(self.trials)
        if number >= self.plan.trials or not self._has_room or self.is_spent:
            return None
        return Asked(number, self._propose(number, [self._tried(trial) for trial in self.trials]))

    def work(self) -> list[Work]:
        """What is to be measured, in order."""
        return sorted(
            Work(trial.rung, trial.number, seed, trial.params, trial.source if self._is_population else None)
            for trial in self._running
            for seed in self.plan.seeds
            if (trial.rung, seed) not in trial.measured and (trial.rung, seed) not in trial.failed
        )

    @property
    def is_spent(self) -> bool:
        """Whether the budget allows no further trial."""
        return self.plan.budget is not None and self.rounds_run >= self.plan.budget

    @property
    def rounds_run(self) -> int:
        """Rounds in all, those of all seeds together."""
        return sum(self._rounds_of(trial, seed) for trial in self.trials for seed in self.plan.seeds)

    @staticmethod
    def _rounds_of(trial: Trial, seed: int) -> int:
        return max((item.rounds for (_, of), item in trial.measured.items() if of == seed), default=0)

    @property
    def _running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "running"]

    @property
    def _is_population(self) -> bool:
        return isinstance(self.plan.prune, Population)

    @property
    def _has_room(self) -> bool:
        return self._is_population or len(self._running) < self.plan.concurrency

    def _tried(self, trial: Trial) -> Tried:
        means = ((item.rung, item.value) for item in trial.decided if item.value is not None)
        return Tried(trial.params, trial.state, {self.plan.rungs[rung]: value for rung, value in means})

    # -- verdicts -------------------------------------------------------------------------------------------------

    def _verdict(self, trial: Trial) -> Decided:
        value, rung, is_last = trial.mean_at(trial.rung), trial.rung, trial.rung == len(self.plan.rungs) - 1
        if isinstance(self.plan.prune, Population) and not is_last:
            return self._compared(trial, self.plan.prune)
        if value is None:
            return Decided(trial.number, rung, "failed", trial.why_failed())
        if is_last:
            return Decided(trial.number, rung, "completed", self._rounds_at(trial, rung), value)
        if not isinstance(self.plan.prune, Halving):
            return Decided(trial.number, rung, "on", "nobody is given up", value)
        reached = [item for item in (self._value_decided(other, rung) for other in self.trials) if item is not None]
        place = 1 + sum(self._is_better(other, value) for other in reached)
        kept = max(1, (len(reached) + 1) // self.plan.prune.factor)
        where = f"{self.plan.rungs[rung]} {self.plan.unit}"
        why = f"number {place} of {len(reached) + 1} that came to {where}, of which {kept} go on"
        return Decided(trial.number, rung, "on" if place <= kept else "pruned", why, value)

    def _rounds_at(self, trial: Trial, rung: int) -> str:
        """How many rounds its runs had then: [stop] may have ended one early."""
        counts = [trial.measured[rung, seed].rounds for seed in self.plan.seeds]
        least, most = min(counts), max(counts)
        return f"{least} {self.plan.unit}" if least == most else f"{least} to {most} {self.plan.unit}"

    @staticmethod
    def _value_decided(trial: Trial, rung: int) -> float | None:
        return next((item.value for item in trial.decided if item.rung == rung), None)

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self.plan.highest else value < than

    # -- a population ---------------------------------------------------------------------------------------------

    def _generation_is_whole(self) -> bool:
        """Whether all members have been measured that are still at the earliest rung."""
        if len(self.trials) < self.plan.trials:
            return False
        rung = min((trial.rung for trial in self._running), default=0)
        return all(trial.is_measured(self.plan.seeds) for trial in self._running if trial.rung == rung)

    def _compared(self, trial: Trial, rule: Population) -> Decided:
        """Truncation selection (Jaderberg et al., 2017): the worst part is replaced by members of the best part."""
        rung, value = trial.rung, trial.mean_at(trial.rung)
        order = self._ranked(rung)
        count = max(1, int(len(self.trials) * rule.exploit))
        best = [number for number in order[:count] if self.trials[number].mean_at(rung) is not None]
        place = order.index(trial.number) + 1
        why = f"number {place} of {len(order)} after {self.plan.rungs[rung]} {self.plan.unit}"
        if not best:
            return Decided(trial.number, rung, "failed", trial.why_failed())
        if trial.number in best or (place <= len(order) - count and value is not None):
            return Decided(trial.number, rung, "on", why, value)
        rng = Random(derive_seed(self.plan.seed, "population", rung, trial.number))
        source = rng.choice(best)
        params = explored(self.plan.space, rule, self.trials[source].history[rung], rng)
        reason = why if value is not None else trial.why_failed()
        return Decided(trial.number, rung, "replaced", f"{reason}; goes on from {source}", value, source, params)

    def _ranked(self, rung: int) -> list[int]:
        """Members from the best to the worst, of equals the first; those without a value last."""
        means: Mapping[int, float | None] = {trial.number: trial.mean_at(rung) for trial in self.trials}
        sign = -1.0 if self.plan.highest else 1.0
        return sorted(means, key=lambda number: ((mean := means[number]) is None, sign * (mean or 0.0), number))
