"""What came of a sweep: a row a trial, with mean and interval over its seeds, and its curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from covey.client.sweeps.events import Decided
from covey.client.sweeps.machine import SweepMachine, Trial
from covey.client.sweeps.record import read_record
from covey.client.sweeps.specification import Params, SweepFile
from covey.client.sweeps.sweep import Sweep
from covey.spec import parse_data

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t at 97.5 %, for 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds."""

    value: float
    half: float | None
    """Half the width of its 95 % confidence interval, by Student's t; None: there is one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of at least one value."""
        count = len(values)
        return cls(fmean(values), _t_975(count - 1) * stdev(values) / sqrt(count) if count > 1 else None)


def _t_975(df: int) -> float:
    """Student's t at 97.5 %; beyond the table by the first terms of its expansion, right to three decimals."""
    return T_975[df - 1] if df <= len(T_975) else 1.96 + 2.37 / df + 2.8 / df**2


@dataclass(frozen=True)
class TrialResult:
    """What is known of a trial."""

    trial: int
    state: str
    """`running`, `completed`, `pruned` or `failed`."""
    rounds: int
    """How many (`SweepResults.unit`) it was measured after; 0: not yet."""
    value: float | None
    """The mean over its seeds then."""
    half: float | None
    """Half of its 95 % interval."""
    seeds: Mapping[int, float]
    """The value with each."""
    params: Params
    """Its values; of a population's member those that it has now."""
    why: str
    """Of the newest decision."""
    curve: tuple[tuple[int, Mean], ...]
    """The mean by round, as far as all seeds are known."""
    decisions: tuple[Decided, ...] = ()


@dataclass(frozen=True)
class SweepResults:
    """What is known of a sweep."""

    name: str
    metric: str
    highest: bool
    planned: int
    seeds: tuple[int, ...]
    unit: str
    """What `rounds` count: rounds, updates of mode async, or steps of mode gossip."""
    rounds_run: int
    """Over all trials and seeds."""
    keys: tuple[str, ...]
    """What is varied."""
    log_keys: tuple[str, ...]
    """Those of them whose logarithm is uniform."""
    trials: tuple[TrialResult, ...]
    """The best first: those that came further before the others, by value, of equals the first; without one last."""


def results_of(sweep: Sweep, machine: SweepMachine) -> SweepResults:
    """The results as a machine knows them."""
    sign = -1.0 if sweep.highest else 1.0
    rungs = {trial.number: _last_rung(trial, machine.plan.seeds) for trial in machine.trials}
    rows = sorted(
        (_row(trial, machine) for trial in machine.trials),
        key=lambda row: (-rungs[row.trial], sign * (row.value or 0.0), row.trial),
    )
    space = sweep.section.space
    return SweepResults(
        name=sweep.name,
        metric=sweep.metric,
        highest=sweep.highest,
        planned=machine.plan.trials,
        seeds=sweep.seeds,
        unit=machine.plan.unit,
        rounds_run=machine.rounds_run,
        keys=tuple(space),
        log_keys=tuple(key for key, dimension in space.items() if dimension.log_uniform),
        trials=tuple(rows),
    )


def read_results(folder: Path) -> SweepResults:
    """The results on record in a sweep's folder, also while it runs.

    Raises:
        NotFound: There is no record.
        StoreError: It is damaged.
    """
    head, events = read_record(folder)
    file = SweepFile.model_validate({"specification": head["specification"], "sweep": head["sweep"]})
    sweep = Sweep(file.sweep, head["specification"], parse_data(head["specification"], later=True))
    machine = sweep.machine()
    for event in events:
        machine.apply(event)
    return results_of(sweep, machine)


def _row(trial: Trial, machine: SweepMachine) -> TrialResult:
    rung, seeds = _last_rung(trial, machine.plan.seeds), machine.plan.seeds
    by_seed = trial.values_at(rung)
    mean = Mean.of([by_seed[seed] for seed in seeds]) if by_seed else None
    return TrialResult(
        trial=trial.number,
        state=trial.state,
        rounds=max((trial.measured[rung, seed].rounds for seed in by_seed), default=0),
        value=mean.value if mean is not None else None,
        half=mean.half if mean is not None else None,
        seeds={seed: by_seed[seed] for seed in seeds if seed in by_seed},
        params=trial.params,
        why=trial.decided[-1].why if trial.decided else "",
        curve=_curve(trial, seeds),
        decisions=tuple(trial.decided),
    )


def _last_rung(trial: Trial, seeds: Sequence[int]) -> int:
    """The last one at which every seed has a value; -1: there is none."""
    known = (rung for rung in range(trial.rung, -1, -1) if len(trial.values_at(rung)) == len(seeds))
    return next(known, -1)


def _curve(trial: Trial, seeds: Sequence[int]) -> tuple[tuple[int, Mean], ...]:
    by_seed: dict[int, dict[int, float]] = {seed: {} for seed in seeds}
    for (_, seed), item in sorted(trial.measured.items()):
        by_seed[seed].update(item.curve)
    shared = set.intersection(*(set(points) for points in by_seed.values()))
    return tuple((at, Mean.of([by_seed[seed][at] for seed in seeds])) for at in sorted(shared))
