"""What a SWEEP.toml says: a run specification, which of its keys are varied, and how trials are chosen and given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator
from typing_extensions import override

from covey.client.specification import read_toml
from covey.errors import SpecError
from covey.spec.sections import Section, Wrong
from covey.validation import explain, refusal

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Params = Mapping[str, bool | int | float | str]
"""Values by key of the specification, with dots."""
Span = Annotated[tuple[float, float], Field(strict=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
KINDS = ("choice", "uniform", "log_uniform", "int")
MOST_TRIALS, MOST_SEEDS = 10_000, 1000


class Dimension(Section):
    """The values of one key: exactly one of these is written."""

    choice: Annotated[tuple[Scalar, ...] | None, Field(min_length=1)] = None
    """One of a list."""
    uniform: Span | None = None
    """Any number between two, both included."""
    log_uniform: Span | None = None
    """The same, its logarithm being uniform; both are greater than 0."""
    integers: Annotated[tuple[StrictInt, StrictInt] | None, Field(alias="int")] = None
    """A whole number between two, both included."""

    @model_validator(mode="after")
    def _require_values(self) -> Self:
        written = [kind for kind in KINDS if getattr(self, _attribute(kind)) is not None]
        if len(written) != 1:
            text = f"write exactly one of {', '.join(KINDS)}"
            raise refusal(written[-1] if written else KINDS[0], text, ", ".join(written) or None)
        if (ends := self.uniform or self.log_uniform or self.integers) and not ends[0] < ends[1]:
            raise refusal(written[0], "nothing lies in it: the first is to be less than the second", ends)
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise refusal("log_uniform", "both are to be greater than 0", self.log_uniform)
        return self

    @property
    def examples(self) -> tuple[bool | int | float | str, ...]:
        """Each choice, or both ends: what is checked before the first trial."""
        return self.choice or self.uniform or self.log_uniform or self.integers or ()

    @property
    def grid(self) -> Sequence[bool | int | float | str]:
        """All values of it; none where they cannot be counted."""
        return self.choice or (range(self.integers[0], self.integers[1] + 1) if self.integers else ())

    @property
    def count(self) -> int:
        """How many these are; `len` has no number for the longest of ranges."""
        return self.integers[1] - self.integers[0] + 1 if self.integers else len(self.choice or ())


class Halving(Section):
    """[sweep.prune] method = "halving": after each rung, only the best trials go on."""

    method: Literal["halving"]
    first: int = Field(default=1, ge=1)
    """Rounds of the first rung; the next ones have `factor` times as many."""
    factor: int = Field(default=3, ge=2)
    """One trial of so many goes on beyond a rung."""
    rungs: tuple[StrictInt, ...] = ()
    """The rungs themselves, in rounds, instead of `first`; the run's last round is one by itself."""

    def ends(self, count: int) -> tuple[int, ...]:
        """The rounds after which a trial is measured, of a run with `count` rounds; the last one is its end."""
        ends, rung = list(self.rungs), self.first
        while not self.rungs and rung < count:
            ends.append(rung)
            rung *= self.factor
        return (*ends, count)


class Population(Section):
    """[sweep.prune] method = "population": the worst members go on with the best ones' models and near their values."""

    method: Literal["population"]
    every: int = Field(ge=1)
    """Rounds between two comparisons."""
    exploit: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Which part of all members is replaced, and by which part."""
    perturb: Annotated[float, Field(gt=1)] = 1.2
    """A number is multiplied or divided by it; a choice, or an integer that stays the same, moves to a neighbour."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How probable it is that a value is drawn anew instead."""

    def ends(self, count: int) -> tuple[int, ...]:
        """The rounds after which members are compared, and the end."""
        return (*range(self.every, count, self.every), count)


class SweepSection(Section):
    """[sweep]: what is tried, and how often."""

    name: str = Field(default="", max_length=60, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Runs are called NAME-TRIAL-SEED; default: the specification's name."""
    method: Literal["grid", "random", "tpe"] = "random"
    metric: str = ""
    """What trials are compared by; default: [evaluation] metric of the specification."""
    direction: Literal["", "max", "min"] = ""
    """Which values are better; default: as the metric's name says (less of a loss or an error, more of all others)."""
    trials: Annotated[int | None, Field(ge=1, le=MOST_TRIALS)] = None
    """How many; of a grid all its points."""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] | Annotated[tuple[StrictInt, ...], Field(min_length=1)] = 1
    """A trial is run with each of them, and counts by the mean. A number: so many from the specification's seed on."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """What the choice of values is drawn from."""
    concurrency: int = Field(default=1, ge=1, le=256)
    """How many trials are run at a time."""
    budget: Annotated[int | None, Field(ge=1)] = None
    """Once so many rounds have been run in all, no further trial is begun."""
    space: dict[str, Dimension] = Field(min_length=1)
    prune: Annotated[Halving | Population, Field(discriminator="method")] | None = None

    @override
    def impossible(self) -> Iterator[Wrong]:
        if self.method == "grid":
            for key, dimension in self.space.items():
                if not dimension.grid:
                    yield f"space.{key}", "a grid needs values that can be counted; write { choice = [...] }", None
            if self.trials is not None:
                yield "trials", "a grid has as many as it has points; leave it out", self.trials
        elif self.trials is None:
            yield "trials", f'method = "{self.method}" needs their number', None
        if isinstance(self.seeds, tuple) and len(set(self.seeds)) < len(self.seeds):
            yield "seeds", "each seed once", self.seeds
        if isinstance(self.prune, Population):
            if self.method != "random":
                yield "method", 'a population begins with random values; write "random"', self.method
            if (self.trials or 0) < 4:
                yield "trials", "a population has at least 4 members", self.trials
            if self.budget is not None:
                yield "budget", "a population runs all its members to the end; leave it out", self.budget


class SweepFile(Section):
    """A whole SWEEP.toml."""

    specification: str | dict[str, Any]
    """The run specification: a file, as seen from this one's folder, or the specification itself."""
    sweep: SweepSection


def read_sweep_file(path: Path) -> SweepFile:
    """Read a SWEEP.toml. Raises as `read_toml`, and SpecError where it is wrong; the message names each key."""
    return sweep_file(read_toml(path))


def sweep_file(data: Mapping[str, Any]) -> SweepFile:
    """The same of what was read already. Raises SpecError."""
    section = data.get("sweep")
    if isinstance(section, Mapping) and isinstance(section.get("space"), Mapping):
        data = {**data, "sweep": {**section, "space": dict(_flat(section["space"]))}}
    try:
        return SweepFile.model_validate(data)
    except ValidationError as error:
        raise SpecError(explain(error, SweepFile)) from error


def _flat(space: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots, whether they were written in quotes, without them, or as sections."""
    for name, value in space.items():
        if isinstance(value, Mapping) and value and not set(value) & set(KINDS):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _attribute(kind: str) -> str:
    return "integers" if kind == "int" else kind
