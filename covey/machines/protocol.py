"""What every run's machine is told (events) and asks for (actions): plain frozen values, no behaviour.

A mode adds events and actions of its own. Times are seconds of one clock that the caller chooses (the daemon uses Unix
time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RunState = Literal["queued", "running", "completed", "failed", "stopped"]
"""The last three are terminal."""
Verdict = Literal["received", "accepted", "rejected", "held", "declined", "lost", "late"]
"""What became of a node's part in a round: `received` and `held` are still to be decided on.

Without an update: `declined` (the node said so), `lost` (it has no connection), `late` (it has one; its time is up).
"""
NO_UPDATE: tuple[Verdict, ...] = ("declined", "lost", "late")
"""Verdicts of those that sent nothing; a later update takes their place."""

NO_PLACE = "waits for its places, which other runs have now"
"""What a run reports that could open something if it had a place."""

# -- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The run is under this coordinator's care from now on: fresh, or restored after a restart."""

    now: float


@dataclass(frozen=True)
class NodeJoined:
    """A node has a live session (again)."""

    node: str
    now: float


@dataclass(frozen=True)
class NodeLost:
    """A node's session ended."""

    node: str
    now: float


@dataclass(frozen=True)
class NodeRemoved:
    """A node was evicted or left for good."""

    node: str
    now: float


@dataclass(frozen=True)
class NodeQueued:
    """A node says that it works for another run first: its time for this run's work begins when it is done there."""

    node: str
    now: float


@dataclass(frozen=True)
class UpdateStored:
    """A node's update for a phase of this round is durable and recorded."""

    node: str
    round: int
    now: float
    phase: int = 1


@dataclass(frozen=True)
class NodeAnswered:
    """A node will send no (valid) update in a phase of this round: verdict `declined` or `rejected`."""

    node: str
    round: int
    verdict: Verdict
    reason: str
    now: float
    phase: int = 1


@dataclass(frozen=True)
class TransferProgressed:
    """Bytes of a node's upload arrived."""

    node: str
    now: float


@dataclass(frozen=True)
class Tick:
    """Time has passed; sent at `wake_at` at the latest."""

    now: float


@dataclass(frozen=True)
class Evaluated:
    """The central evaluation of a version ended (with or without numbers)."""

    version: int
    now: float
    value: float | None = None
    """Of the metric that the run goes by; None: it has none."""


@dataclass(frozen=True)
class NodeEvaluated:
    """A node answered, or refused, an evaluation of the last version."""

    node: str
    version: int
    now: float


@dataclass(frozen=True)
class PauseChanged:
    """The operator paused the coordinator, or let it go on."""

    paused: bool
    now: float


@dataclass(frozen=True)
class PlaceChanged:
    """Other runs have this one's places, or it has them again: without, it opens nothing new."""

    has_place: bool
    now: float


@dataclass(frozen=True)
class StopRequested:
    """The operator stops the run."""

    reason: str


SharedEvent = (
    Started
    | NodeJoined
    | NodeLost
    | NodeRemoved
    | NodeQueued
    | UpdateStored
    | NodeAnswered
    | TransferProgressed
    | Tick
    | Evaluated
    | NodeEvaluated
    | PauseChanged
    | PlaceChanged
    | StopRequested
)
"""What the machines of all modes are told."""

# -- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cancel:
    """Tell a node to stop working on a round."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class EvaluateCentrally:
    """Evaluate a version on the task's central data."""

    version: int


@dataclass(frozen=True)
class AssignEvaluation:
    """Ask a node to evaluate the last version on its own data."""

    node: str
    version: int


@dataclass(frozen=True)
class Report:
    """What the run waits for, for people; empty: nothing."""

    reason: str


@dataclass(frozen=True)
class FinishRun:
    """The run is over: completed, failed or stopped."""

    state: RunState
    reason: str


SharedAction = Cancel | EvaluateCentrally | AssignEvaluation | Report | FinishRun
"""What the machines of all modes ask for."""
