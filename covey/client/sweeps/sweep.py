"""A sweep as it is to be run: its file and the specification that it varies, checked as far as that goes here."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covey.client.models.best import less_is_better
from covey.client.specification import Specification, parsed, read_toml, toml_of
from covey.client.sweeps.machine import Plan, SweepMachine
from covey.client.sweeps.proposals import Tried, by_tpe, drawn, grid
from covey.client.sweeps.specification import (
    MOST_TRIALS,
    Halving,
    Params,
    Population,
    SweepFile,
    SweepSection,
    read_sweep_file,
    sweep_file,
)
from covey.errors import SpecError
from covey.metrics import NODES
from covey.spec import RunSpec
from covey.spec.modes import mode_named

OWN = {"name": "runs are named by sweep.name", "seed": "write sweep.seeds", "mode": "a sweep's runs have one mode"}
"""Keys that a space cannot have, and what to do instead."""


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes:
        section: [sweep], as it was written.
        base: The run specification as a mapping, as it was written; a file that it names has its whole path.
        spec: The same, read.
    """

    section: SweepSection
    base: Mapping[str, Any]
    spec: RunSpec

    @property
    def name(self) -> str:
        """How its runs' names begin."""
        return self.section.name or self.spec.name

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.section.metric or self.spec.evaluation.metric

    @property
    def highest(self) -> bool:
        """Whether its highest value is the best one."""
        if self.section.direction or self.section.metric:
            return self.section.direction == "max" or not (self.section.direction or less_is_better(self.metric))
        return self.spec.evaluation.goal == "max"

    @property
    def seeds(self) -> tuple[int, ...]:
        """What each trial is run with."""
        seeds = self.section.seeds
        return seeds if isinstance(seeds, tuple) else tuple(self.spec.seed + place for place in range(seeds))

    @property
    def rungs(self) -> tuple[int, ...]:
        """After how many rounds trials are measured."""
        count, prune = self.spec.rounds_in_all, self.section.prune
        return (count,) if prune is None else prune.ends(count)

    @property
    def first_params(self) -> Params:
        """The first of all values: what is tried before the first trial."""
        return {key: dimension.examples[0] for key, dimension in self.section.space.items()}

    @property
    def is_population(self) -> bool:
        """Whether its trials take over each other's models."""
        return isinstance(self.section.prune, Population)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What one should know before it is run."""
        if not self.is_population:
            return ()
        return (
            "of a population, a member's run begins with the model that it goes on from, and with nothing else: what "
            "nodes and the coordinator keep beside it (scaffold, error feedback, momentum, local models) begins anew",
        )

    @property
    def head(self) -> dict[str, Any]:
        """What its record begins with."""
        section = self.section.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"digest": self.digest, "specification": dict(self.base), "sweep": section}

    @property
    def digest(self) -> str:
        """Names what the decisions depend on: a record of another one is another sweep's."""
        what = [self.section.model_dump(mode="json", by_alias=True, exclude={"concurrency"}), self.base]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()

    def machine(self) -> SweepMachine:
        """What decides, before the first event."""
        section, points = self.section, grid(self.section.space) if self.section.method == "grid" else []
        plan = Plan(
            trials=section.trials or len(points),
            seeds=self.seeds,
            rungs=self.rungs,
            highest=self.highest,
            unit=self.spec.facts.unit,
            concurrency=section.concurrency,
            budget=section.budget,
            prune=section.prune,
            space=section.space,
            seed=section.seed,
        )

        def propose(number: int, others: Sequence[Tried]) -> Params:
            if points:
                return points[number]
            if section.method == "tpe":
                return by_tpe(section.space, section.seed, number, others, highest=self.highest)
            return drawn(section.space, section.seed, number)

        return SweepMachine(plan, propose)

    def run_name(self, trial: int, seed: int, rung: int) -> str:
        """Of the run that measures a trial at a rung; a population has a run for each rung."""
        name = f"{self.name}-{trial}-{seed}"
        return f"{name}-g{rung}" if self.is_population else name

    def run_spec(self, params: Params, seed: int, name: str, rung: int | None = None) -> dict[str, Any]:
        """The specification of a trial's run.

        Args:
            params: The trial's values.
            seed: Which.
            name: The run's.
            rung: Of a population: the run has the rounds up to this rung, from the one before; None: all of them.
        """
        spec = copy.deepcopy(dict(self.base))
        for key, value in params.items():
            _put(spec, key, value)
        if self.is_population and rung is not None:
            spec = self.shortened(spec, self.rungs[rung] - (self.rungs[rung - 1] if rung else 0))
        return {**spec, "name": name, "seed": seed}

    def shortened(self, spec: dict[str, Any], count: int | None) -> dict[str, Any]:
        """A specification with so many rounds, or updates; None: paused after the first one, which is evaluated."""
        mode = mode_named(self.spec.mode)
        section, key, value = ("evaluation", "every", 1) if count is None else (mode.section, mode.count_key, count)
        return {**spec, section: {**spec.get(section, {}), key: value}}


def read_sweep(path: Path) -> Sweep:
    """Read a SWEEP.toml and the specification that it names, and check them with each of the values that are tried.

    Raises:
        NotFound: A file is missing.
        SpecError: Something is wrong; the message names the key.
    """
    return _with_base(read_sweep_file(path), path.parent)


def _with_base(file: SweepFile, folder: Path) -> Sweep:
    if isinstance(file.specification, str):
        base = folder / file.specification
        return sweep_of(file, read_toml(base), base.parent)
    return sweep_of(file, file.specification, folder)


def sweep_given(spec: Specification) -> tuple[Sweep, str]:
    """A sweep as a caller has it: a SWEEP.toml's path, its text, or a mapping; and the name of its folder.

    Raises as `read_sweep`.
    """
    if isinstance(spec, Path) or (isinstance(spec, str) and "=" not in spec):
        return read_sweep(Path(spec)), Path(spec).stem
    file = sweep_file(spec if isinstance(spec, Mapping) else toml_of(spec, "the sweep"))
    sweep = _with_base(file, Path())
    return sweep, sweep.name


def sweep_of(file: SweepFile, base: Mapping[str, Any], folder: Path) -> Sweep:
    """A sweep over a specification that was read already; its relative paths count from `folder`. Raises SpecError."""
    spec = parsed(base, later=True)
    if spec.model.file:
        base = copy.deepcopy(dict(base))
        base["model"]["initial"] = str((folder / Path(spec.model.file).expanduser()).absolute())
    sweep = Sweep(file.sweep, base, spec)
    _require_possible(sweep)
    return sweep


def _require_possible(sweep: Sweep) -> None:
    spec, section = sweep.spec, sweep.section
    if spec.evaluation.every == 0 and spec.facts.coordinated:
        raise SpecError(
            "evaluation.every: 0 evaluates no version, and trials are compared by a metric; write 1 or more"
        )
    if section.prune is not None:
        _require_rungs(sweep)
    mode = mode_named(spec.mode)
    count_key = f"{mode.section}.{mode.count_key}"
    for key in section.space:
        if key in OWN:
            raise SpecError(f"sweep.space: {key} cannot be varied; {OWN[key]}")
        if key == count_key and section.prune is not None:
            raise SpecError(f"sweep.space: {key} cannot be varied where rungs are counted in it; leave one of them out")
        if key == "evaluation.every" and isinstance(section.prune, Halving):
            raise SpecError(f"sweep.space: {key} cannot be varied with halving: each rung is to be evaluated")
    if section.method == "grid" and math.prod(each.count for each in section.space.values()) > MOST_TRIALS:
        raise SpecError(
            f"sweep.space: the grid has more than {MOST_TRIALS} points; give fewer values, or draw at random"
        )
    _require_values(sweep)


def _require_rungs(sweep: Sweep) -> None:
    spec, ends, prune = sweep.spec, sweep.rungs, sweep.section.prune
    if spec.facts.coordinated and not spec.facts.synchronous:
        raise SpecError(
            f'sweep.prune: a run of mode "{spec.mode}" ends after so many {spec.facts.unit}, and is evaluated by '
            "version; how many versions come of them is not known before, so there are no rungs: leave it out"
        )
    if not spec.facts.coordinated and isinstance(prune, Halving):
        raise SpecError(
            f'sweep.prune: a run of mode "{spec.mode}" has its value at its end only: nobody can give it up at a rung. '
            'Leave [sweep.prune] out, or write method = "population", whose members are runs to their end'
        )
    if sweep.metric.startswith(NODES) and isinstance(prune, Halving):
        raise SpecError(
            f"sweep.prune: {sweep.metric} is known at a run's end only; compare by what is evaluated centrally"
        )
    if isinstance(prune, Halving) and (spec.stop.time_s is not None or "stop.time_s" in sweep.section.space):
        raise SpecError(
            "stop.time_s: with halving a run is paused at its rungs, and its time goes on meanwhile; leave it out, "
            "and give the sweep fewer rounds, or a sweep.budget"
        )
    if list(ends) != sorted(set(ends)) or ends[0] < 1 or len(ends) < 2:
        shown = ", ".join(map(str, ends))
        raise SpecError(
            f"sweep.prune: rungs increase, from 1 on, and end before the run's last round (they are {shown})"
        )
    every = spec.evaluation.every
    if isinstance(prune, Halving) and (unevaluated := [end for end in ends[:-1] if end % every]):
        raise SpecError(
            f"sweep.prune: round {unevaluated[0]} is a rung, and only every {every}th round is evaluated; "
            "write evaluation.every = 1, or other rungs"
        )


def _require_values(sweep: Sweep) -> None:
    """Read the specification with each value, with each seed, and with the longest names: what cannot be is said."""
    usual = sweep.first_params
    for key, dimension in sweep.section.space.items():
        for value in dimension.examples:
            name = sweep.run_name(0, sweep.seeds[0], 0)
            try:
                parsed(sweep.run_spec({**usual, key: value}, sweep.seeds[0], name), later=True)
            except SpecError as error:
                raise SpecError(f"sweep.space: with {key} = {json.dumps(value)}: {error}") from error
    last = sweep.machine().plan.trials - 1
    for seed in sweep.seeds:
        name = sweep.run_name(last, seed, len(sweep.rungs) - 1)
        try:
            parsed(sweep.run_spec(usual, seed, name), later=True)
        except SpecError as error:
            raise SpecError(f"sweep: its run {name}, with seed {seed}: {error}") from error


def _put(spec: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    inside = spec
    for name in sections:
        inside = inside.setdefault(name, {})
        if not isinstance(inside, dict):
            raise SpecError(f"sweep.space: {key}: {name} is no section of the specification")
    inside[last] = value
