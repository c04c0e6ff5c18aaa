"""Where a sweep's runs are run: what the driver asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from covey.client.sweeps.curves import Curve, curve_of
from covey.client.sweeps.events import Failed, Measured
from covey.client.sweeps.machine import Work
from covey.client.sweeps.specification import Halving
from covey.client.sweeps.sweep import Sweep
from covey.client.values import Round, Run
from covey.errors import RunFailed


class Trials(ABC):
    """Runs the runs of one sweep. What was run before is not run again.

    Args:
        sweep: Which.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    @property
    @abstractmethod
    def at_once(self) -> int:
        """How many pieces of work are done at a time."""

    @abstractmethod
    async def start(self) -> None:
        """Before the first piece of work.

        Raises:
            SpecError: The sweep cannot work; the message says why.
        """

    @abstractmethod
    async def close(self) -> None:
        """After the last one, or when the sweep is given up: what runs elsewhere runs on."""

    @abstractmethod
    async def measure(self, work: Work) -> Measured | Failed:
        """Bring a run to a rung, and say the metric's value there.

        Raises:
            CoveyError: Something is wrong that is not the trial's fault.
        """

    @abstractmethod
    async def give_up(self, trial: int, rung: int) -> None:
        """No run of this trial goes beyond this rung."""

    def target(self, work: Work) -> int:
        """How many rounds the run of a piece of work is to have then: its own, in a population."""
        rungs, rung = self.sweep.rungs, work.rung
        return rungs[rung] - (rungs[rung - 1] if self.sweep.is_population and rung else 0)

    def is_known(self, work: Work, rounds: Iterable[Round]) -> bool:
        """Whether the metric has its value at the rung: a round is committed some time before it is evaluated.

        Raises:
            SpecError: No evaluation gives the metric.
        """
        target = self.target(work)
        try:
            return curve_of(rounds, self.sweep.metric, target)[-1][0] == target
        except RunFailed:
            return False

    def outcome(self, work: Work, run: Run, rounds: Iterable[Round]) -> Measured | Failed:
        """What a run's record says of a rung.

        Raises:
            SpecError: No evaluation gives the metric.
        """
        rounds = list(rounds)
        went_on = isinstance(self.sweep.section.prune, Halving)  # beyond the rung, whose value counts
        if run.state in ("failed", "stopped") and not (went_on and self.is_known(work, rounds)):
            return Failed(work.trial, work.rung, work.seed, f"run {run.run} is {run.state}: {run.reason}")
        target, before = self.target(work), self.sweep.rungs[work.rung - 1] if work.rung else 0
        try:
            curve = curve_of(rounds, self.sweep.metric, target if self.sweep.section.prune else None)
        except RunFailed as error:
            return Failed(work.trial, work.rung, work.seed, f"run {run.run}: {error}")
        shift = before if self.sweep.is_population else 0
        whole: Curve = tuple((at + shift, value) for at, value in curve)
        done = min(run.done, target) + shift if self.sweep.section.prune else run.done
        newer = tuple(point for point in whole if point[0] > before)
        return Measured(work.trial, work.rung, work.seed, done, whole[-1][1], newer, run.run)
