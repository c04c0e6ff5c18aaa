"""Making the next version of a run from the updates of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from covey.machines.protocol import Verdict
from covey.metrics import Totals
from covey.worker.jobs.files import ArtifactField, WrittenFile


@dataclass(frozen=True)
class AggregateRow:
    """One node's update: its declared weight, its parts' files, and what it reported of its training."""

    node: str
    weight: float
    parts: Mapping[str, Path]
    loss: float | None = None
    """Mean training loss; None: not reported."""


@dataclass(frozen=True)
class AnswerRow:
    """One node's answer in one phase of a round, for the method to look at."""

    node: str
    phase: int
    verdict: Verdict
    reason: str
    weight: float
    metrics: Mapping[str, tuple[float, float]]
    parts: Mapping[str, Path]


@dataclass(frozen=True)
class OpenedPhase:
    """A further phase of the round: the nodes that are asked, and the JSON that each is asked with."""

    phase: int
    params: Mapping[str, str]
    rejected: Mapping[str, str]
    """Node to reason: its answers in this round do not count."""


@dataclass(frozen=True)
class AggregateJob:
    """Make the next version from a base and the updates of a round."""

    run: str
    spec_json: str
    layout: str
    round: int
    """Counts from 1."""
    base: Path
    rows: tuple[AggregateRow, ...]
    """In roster order."""
    state: Mapping[str, Path]
    """The files of the base version's state (`Description.slots`) by name; empty in the first round."""
    out: Path
    """Where to write the new model file (an existing file is overwritten)."""
    out_state: Mapping[str, Path]
    """Where to write each file of `Description.slots`."""
    roster: tuple[str, ...] = ()
    """All nodes of the run, in order."""
    allow_path: bool = False
    """Whether the operator allows a task named by import path (trusted data are the task's)."""
    answers: tuple[AnswerRow, ...] = ()
    """Of a round with phases: all answers so far, by phase and in roster order."""
    phase: int = 1
    """The one whose answers are in."""


@dataclass(frozen=True)
class RowVerdict:
    """What became of one update."""

    node: str
    accepted: bool
    reason: str
    share: float
    """Its effective share in the result; 0 if it was rejected."""
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class AggregateResult:
    """The next version, or that too few updates are left for the rule (`enough` is false: no files).

    Or (`opens`) that the method asks nodes once more first: then there are no files and no verdicts.
    """

    enough: bool
    verdicts: tuple[RowVerdict, ...]
    """One for every row, in order."""
    artifact: ArtifactField | None = None
    model_sha256: str = ""
    state: tuple[WrittenFile, ...] = ()
    seconds: float = 0.0
    rule: str = ""
    """The name of the rule that was applied: the run's, or its fallback."""
    metrics: dict[str, Totals] = field(default_factory=dict)
    """Of the new version, known without evaluating it: the privacy spent."""
    opens: OpenedPhase | None = None
