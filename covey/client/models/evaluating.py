"""A run that only evaluates a model there is: its specification."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from covey.client.export import models_elsewhere
from covey.client.models.continuing import in_study_of
from covey.client.reading.figures import has_figures
from covey.client.reading.names import RunName, VersionName
from covey.client.specification import Specification, parsed
from covey.client.values import Run, Version
from covey.errors import NotFound, SpecError

KEPT = ("seed", "task", "data", "training", "method", "keep", "study", "priority")
"""Sections and keys of a training's specification that mean the same here."""
OF_EXCHANGE = ("share", "local", "frozen", "models")
OF_EVALUATION = ("batch_size", "metric", "goal")
ANY_ANSWER = 1e-6
"""The quorum: the round ends with whoever answers."""
SUFFIX = "-evaluation"
MAX_NAME = 100
_SUFFIXED = re.compile(rf"{SUFFIX}(-\d+)?$")
_RUN = re.compile(r"(?P<run>[^@\s]{1,100})(?:@(?P<version>\d{1,9}|newest|best))?")


class Runs(Protocol):
    """Where runs are read: `covey.client.connection.Connection`."""

    def run(self, run: RunName) -> Run:
        """A run. Raises NotFound."""

    def version(self, run: RunName, version: VersionName = "newest") -> Version:
        """One of its versions."""


class Wanted(NamedTuple):
    """What is to be known of a model, beside what the nodes' evaluation of it says.

    Attributes:
        nodes: Who is asked; none: all.
        local_baseline: Whether nodes also train alone, and evaluate that.
        rounds: For how many rounds; None: as many as led to the model.
        name: Of the run; empty: that of the specification, with "-evaluation", and in a study, which has each
            name once, with a number where there is one already.
    """

    nodes: Sequence[str] = ()
    local_baseline: bool = False
    rounds: int | None = None
    name: str = ""


def evaluation_of(runs: Runs, model: str, wanted: Wanted, spec: Specification | None = None) -> dict[str, Any]:
    """The specification of a run in which nodes evaluate a model, and train nothing but, if that is wanted, alone.

    Args:
        runs: Where runs are read.
        model: A safetensors file, or a run (`NAME`, `NAME@7`, `NAME@best`).
        wanted: What is to be known.
        spec: The training's specification, with the task; None: the run's.

    Raises:
        NotFound: There is no such run or version, or its models are with its nodes.
        SpecError: A file without a specification; nodes hide their examples; or how the baseline would begin, or how
            long it would train, cannot be said.
    """
    if _is_file(model):
        if spec is None:
            raise SpecError(
                f"{model} does not say of which task it is; name a specification with it (--spec SPEC.toml)"
            )
        begun = json.loads(parsed(spec, later=True).to_json())
        return _specification(runs, begun, str(Path(model).expanduser().absolute()), wanted, wanted.rounds)
    match = _RUN.fullmatch(model.removeprefix("run:"))
    if match is None:
        raise SpecError(f"{model!r} is neither a file nor a run; write FILE.safetensors, RUN, RUN@7 or RUN@best")
    run = runs.run(match["run"])
    if has_figures(run):
        raise NotFound(f"run {run.run} makes statistics, and has no model; covey run statistics shows its figures")
    if not run.is_coordinated:
        raise NotFound(models_elsewhere(run.run))
    asked = match["version"] or "newest"
    version = runs.version(run, cast(VersionName, int(asked) if asked.isdigit() else asked))
    begun = dict(run.spec) if spec is None else in_study_of(run, json.loads(parsed(spec, later=True).to_json()))
    # Experiment data are dealt as they were.
    begun["data"] = {**begun["data"], "parts": begun["data"]["parts"] or run.roster_size or None}
    rounds = wanted.rounds if wanted.rounds is not None else _rounds_of(run, version.version)
    return _specification(runs, begun, f"run:{run.run}@{version.version}", wanted, rounds)


def _is_file(model: str) -> bool:
    return not model.startswith("run:") and (Path(model).suffix == ".safetensors" or Path(model).expanduser().is_file())


def _rounds_of(run: Run, version: int) -> int:
    """How many rounds each node trained for to make a version; of an asynchronous run, its share of the updates."""
    if run.unit == "rounds":
        return version
    decided = version / max(1, run.rounds_committed) * run.updates_decided
    return math.ceil(decided / max(1, run.roster_size))


def _specification(
    runs: Runs, begun: dict[str, Any], initial: str, wanted: Wanted, rounds: int | None
) -> dict[str, Any]:
    if (begun.get("privacy") or {}).get("unit") == "example":
        raise SpecError(
            "nodes of this training hide their examples ([privacy]), and tell no metrics of them; name a specification "
            "without it (--spec SPEC.toml), if their operators may tell"
        )
    local_rounds = _local_rounds(begun, rounds, is_file=not initial.startswith("run:")) if wanted.local_baseline else 0
    if wanted.rounds is not None and not wanted.local_baseline:
        raise SpecError("rounds are those of the local-only baseline; ask for it (--local-baseline), or leave them out")
    policy, whole = begun["rounds"], 1 + local_rounds
    return {
        **{key: begun[key] for key in KEPT if key in begun},
        "name": wanted.name or _free_name(runs, begun["name"], begun.get("study", "")),
        "mode": "rounds",
        "exchange": {key: value for key, value in begun["exchange"].items() if key in OF_EXCHANGE},
        "model": {"initial": initial},
        "evaluation": {
            **{key: begun["evaluation"][key] for key in OF_EVALUATION},
            "only": True,
            "local_rounds": local_rounds,
            "nodes": list(wanted.nodes),
        },
        "rounds": {
            "count": 1,
            "quorum": ANY_ANSWER,
            "short": "fail",
            "deadline_s": policy["deadline_s"] * whole,
            "hard_deadline_s": policy["hard_deadline_s"] * whole,
            "rejoin_s": policy["rejoin_s"],
        },
    }


def _free_name(runs: Runs, name: str, study: str) -> str:
    """Of the evaluation: a study has each name once."""
    begun = _SUFFIXED.sub("", name)
    for number in itertools.count(1):
        suffix = SUFFIX if number == 1 else f"{SUFFIX}-{number}"
        wanted = begun[: MAX_NAME - len(suffix)] + suffix
        if not study:
            return wanted
        try:
            runs.run(f"{study}/{wanted}")
        except NotFound:
            return wanted
    raise AssertionError  # numbers do not end


def _local_rounds(begun: dict[str, Any], rounds: int | None, *, is_file: bool) -> int:
    """Of the baseline.

    Raises:
        SpecError: Nobody knows how many, or from which model it should begin, or how it should train.
    """
    if is_file and begun.get("model", {}).get("initial"):
        raise SpecError(
            "the training began with a model of its own ([model] initial), with which the local-only baseline would "
            "have to begin; name the run that trained the model instead of its file: its record says which one that was"
        )
    if begun["evaluation"].get("only"):
        raise SpecError(f"run {begun['name']} trains nothing; for a local-only baseline name the run that trained")
    if begun["exchange"]["payload"] == "gradient":
        raise SpecError(
            'with payload "gradient" nodes take no step of their own, so there is nothing that they do alone; name a '
            "specification that trains locally (--spec SPEC.toml)"
        )
    if not rounds:
        raise SpecError("say for how many rounds nodes train alone (--rounds N): no training led to this version")
    return rounds
