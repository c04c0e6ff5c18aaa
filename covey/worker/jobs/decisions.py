"""What coordinator and worker say to each other about the decisions of asynchronous runs. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from covey.worker.jobs.files import ArtifactField, WrittenFile


@dataclass(frozen=True)
class AsyncArrival:
    """An update of an asynchronous run that is to be decided on, or is held."""

    number: int
    """The assignment's number, which is also the `round` of the update's statement."""
    node: str
    weight: float
    parts: Mapping[str, Path]
    base_version: int
    """By the coordinator's own record."""


@dataclass(frozen=True)
class DecideJob:
    """Decide on one update of an asynchronous run, and make the next version if the policy wants one."""

    run: str
    spec_json: str
    layout: str
    arrival: AsyncArrival
    version: int
    """The newest version's number; the arrival's staleness is this minus its base version."""
    held: tuple[AsyncArrival, ...]
    """What the policy held before, in the order of decisions."""
    updates: Mapping[int, Mapping[str, Path]]
    """Files of earlier updates that the state refers to, by assignment number and part."""
    models: Mapping[int, Path]
    """Files of model versions that the state or an arrival refers to (the newest among them), by version."""
    state_json: str
    """The policy's state after the last decision, canonical JSON; empty at first."""
    state: Mapping[str, Path]
    """The newest version's state files (server optimizer), by name; empty before the first step."""
    out: Path
    out_state: Mapping[str, Path]
    roster: tuple[str, ...] = ()
    """All nodes of the run, in order."""
    evicted: tuple[str, ...] = ()
    """Nodes whose held updates are rejected with reason `EVICTED` before the policy sees the arrival."""
    allow_path: bool = False


EVICTED = "evicted"
"""Why an update of a node that was evicted is rejected."""


@dataclass(frozen=True)
class AsyncVerdict:
    """What became of one update by a decision: of the arrival always, of held ones when they are released."""

    number: int
    node: str
    verdict: Literal["accepted", "rejected", "held"]
    reason: str
    share: float
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class DecideResult:
    """A decision. `artifact` is None where it makes no version."""

    verdicts: tuple[AsyncVerdict, ...]
    state_json: str
    pinned_updates: tuple[int, ...]
    """Assignment numbers of updates whose files the new state refers to (held ones too)."""
    pinned_versions: tuple[int, ...]
    """Versions that the new state refers to."""
    artifact: ArtifactField | None = None
    model_sha256: str = ""
    state: tuple[WrittenFile, ...] = ()
    seconds: float = 0.0
