"""A step of a run: answers in; verdicts and a state out, and a version, or the nodes that are asked once more.

Every mode's steps are of this one operation. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from covey.aggregation.verdicts import Verdict
from covey.machines import protocol as pr
from covey.metrics import Totals
from covey.worker.jobs.files import ArtifactField, WrittenFile

EVICTED = "evicted"
"""Why an update of a node that was evicted is rejected."""
LOST = "lost: its files were damaged or missing on the coordinator"
"""Why an update that was acknowledged is rejected; what the reason begins with where there is more to say."""


@dataclass(frozen=True)
class StepAnswer:
    """One node's answer: its declared weight, its parts' files, and what it reported of its training."""

    node: str
    weight: float
    parts: Mapping[str, Path]
    loss: float | None = None
    """Mean training loss; None: not reported."""
    number: int = 0
    """Where updates are decided on one at a time: of its assignment, which is the `round` of its statement."""
    base_version: int = 0
    """There also: the version that it was computed on, by the coordinator's own record."""
    phase: int = 1
    """Of the round."""
    verdict: pr.Verdict = "received"
    """`received`: it is to be judged; others are there for a method with phases to look at."""
    reason: str = ""
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What it reported; for a method with phases only."""


@dataclass(frozen=True)
class StepJob:
    """Take a step from the newest version. The result depends on the job alone."""

    run: str
    spec_json: str
    layout: str
    """Canonical JSON."""
    version: int
    """The newest version's number. In a run with rounds, the one after it is the round's number."""
    models: Mapping[int, Path]
    """Files of versions, by number: of the newest, and of those that the state or an answer refers to."""
    answers: tuple[StepAnswer, ...]
    """Of a round: by phase, and in roster order. Else the one update that is to be decided on."""
    state: Mapping[str, Path]
    """The files of the newest version's state (`Description.slots`) by name; empty before the first step."""
    out: Path
    """Where to write the new model file (an existing file is overwritten)."""
    out_state: Mapping[str, Path]
    """Where to write each file of `Description.slots`."""
    roster: tuple[str, ...] = ()
    """All nodes of the run, in order."""
    allow_path: bool = False
    """Whether the operator allows a task named by import path (trusted data are the task's)."""
    data_paths: Mapping[str, str] = field(default_factory=dict)
    """Where the task finds the coordinator's own data, by name."""
    phase: int = 1
    """Of the round: the one whose answers are in."""
    state_json: str = ""
    """The state after the last step, canonical JSON; empty: at first, or of a rule that keeps none."""
    held: tuple[StepAnswer, ...] = ()
    """What the policy held before, in the order of decisions."""
    updates: Mapping[int, Mapping[str, Path]] = field(default_factory=dict)
    """Files of earlier updates that the state refers to, by assignment number and part."""
    evicted: tuple[str, ...] = ()
    """Nodes whose held updates are rejected with reason `EVICTED` before the policy sees the arrival."""
    lost: tuple[int, ...] = ()
    """Earlier updates that the state refers to, and that have no files any more, by assignment number: those that are
    held are rejected with reason `LOST`, and the policy goes on without each."""


def updates_of(job: StepJob) -> tuple[StepAnswer, ...]:
    """What each node sent in all phases as one, in roster order; the rest of it is as in its first answer."""
    by_node: dict[str, StepAnswer] = {}
    for answer in job.answers:
        if answer.verdict == "received":
            first = by_node.get(answer.node)
            by_node[answer.node] = replace(first, parts={**first.parts, **answer.parts}) if first else answer
    places = {node: place for place, node in enumerate(job.roster)}
    return tuple(sorted(by_node.values(), key=lambda update: places.get(update.node, len(places))))


@dataclass(frozen=True)
class OpenedPhase:
    """A further phase of the round: the nodes that are asked, and the JSON that each is asked with."""

    phase: int
    params: Mapping[str, str]
    rejected: Mapping[str, str]
    """Node to reason: its answers in this round do not count."""


@dataclass(frozen=True)
class StepResult:
    """What the step came to: there are no files where it makes no version."""

    verdicts: tuple[Verdict, ...]
    """Of a round, one for each node, in roster order. Else the arrival's, then those of held updates that leave."""
    enough: bool = True
    """False: too few updates are left for the rule; there is no version, and the round is tried again."""
    opens: OpenedPhase | None = None
    """The method asks nodes once more first: there are no verdicts yet, and no version."""
    state_json: str = ""
    """The state after it, canonical JSON; empty: the rule keeps none."""
    pinned_updates: tuple[int, ...] = ()
    """Assignment numbers of updates whose files the new state refers to (held ones too)."""
    pinned_versions: tuple[int, ...] = ()
    """Versions that the new state refers to."""
    artifact: ArtifactField | None = None
    model_sha256: str = ""
    state: tuple[WrittenFile, ...] = ()
    seconds: float = 0.0
    rule: str = ""
    """The name of the rule that was applied: the run's, or its fallback."""
    metrics: dict[str, Totals] = field(default_factory=dict)
    """Of the new version, known without evaluating it: the privacy spent."""
