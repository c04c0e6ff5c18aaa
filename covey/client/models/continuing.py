"""A run that goes on from another one's model: its specification."""

from __future__ import annotations

import json
from typing import Any

from covey.client.export import models_elsewhere
from covey.client.reading.names import VersionName
from covey.client.specification import Specification, parsed
from covey.client.values import Run
from covey.errors import Conflict, NotFound, SpecError
from covey.spec.modes import mode_named


def continuation(
    parent: Run, count: int | None = None, changed: Specification | None = None, *, version: VersionName = "newest"
) -> dict[str, Any]:
    """The specification of a run that begins with a version of another one's model.

    The model is carried over, and nothing else: a server optimizer, a method, a codec, schedules and the account of
    privacy begin anew, rounds count from 1, and what nodes kept of the parent stays the parent's.

    Args:
        parent: The run that is continued.
        count: How many rounds (updates of an asynchronous run) the new one has; None: as its specification says.
        changed: Its specification; None: the parent's. Where it names no study, the run is of the parent's.
        version: Of the parent's model.

    Raises:
        SpecError: The changed specification is wrong, or names a model of its own.
        Conflict: The parent goes on itself, so that its newest version is not its last.
        NotFound: Its models are with its nodes.
    """
    if not parent.is_coordinated:
        raise NotFound(models_elsewhere(parent.run))
    if not parent.ended and version == "newest":
        raise Conflict(f"run {parent.run} is {parent.state}; stop it first, or name one of its versions (--version)")
    spec = dict(parent.spec)
    if changed is not None:
        spec = in_study_of(parent, json.loads(parsed(changed, later=True).to_json()))
    if changed is not None and "model" in spec:
        raise SpecError(f"model.initial: the run begins with the model of run {parent.run}; leave it out")
    spec["model"] = {"initial": f"run:{parent.run}@{version}"}
    if count is not None:
        mode = mode_named(str(spec["mode"]))
        spec[mode.section] = {**spec[mode.section], mode.count_key: count}
    return spec


def in_study_of(parent: Run, spec: dict[str, Any]) -> dict[str, Any]:
    """A specification for a run's model: of its study, unless it names one, so that the model stays there."""
    return {"study": parent.study, **spec} if parent.study else spec
