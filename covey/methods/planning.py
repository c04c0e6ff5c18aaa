"""How a method leads a round through its phases: what it is shown of the answers, and what it decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from covey.machines.protocol import Verdict
from covey.methods.parts import RunForm
from covey.vectors import Vector


@dataclass(frozen=True)
class Answer:
    """What one node answered in one phase.

    Attributes:
        node: Its id.
        phase: From 1.
        verdict: `received`; or `declined`, `lost`, `late` or `rejected`, and then `reason` says why.
        reason: For people.
        weight: As the node declared it.
        metrics: Of its training, by name: (total, count).
        parts: Where it was received, each part that it sent: that of the rule as a `covey.vectors.Vector`, float32
            `[d]`, something to be added to the base model (subtracted where nodes send gradients); bytes of the
            method's own as `bytes`; another one as a flat tensor in its layout's dtype. All numbers are finite; nothing
            else was looked at.
    """

    node: str
    phase: int
    verdict: Verdict
    reason: str = ""
    weight: float = 0.0
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Open:
    """Ask these nodes for their answer in a phase: the next, or the same again, but each node only once in each.

    Attributes:
        phase: From 2.
        assignments: Node, which must have answered in phase 1, to JSON of the method's own.
        rejected: Node to reason: none of its answers in this round counts.
    """

    phase: int
    assignments: Mapping[str, str]
    rejected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Close:
    """End the round: the rule is applied to the updates of `nodes`.

    Attributes:
        nodes: Each has sent the parts of all phases.
        rejected: Node to reason. All others took part, and have no share in the result.
        chosen: Node to text of the method's own, for `Method.finish`.
    """

    nodes: tuple[str, ...]
    rejected: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanContext:
    """What a method may know of the round that it plans. New fields come with defaults.

    Attributes:
        round: From 1.
        form: The run.
        roster: All nodes of the run, in order.
        audit: Metrics, by name, of the base model moved by a vector (None: of the base model) on the task's central
            data, those left out that the rule is trusted with; SpecError where the task has none.
    """

    round: int
    form: RunForm
    roster: tuple[str, ...]
    audit: Callable[[Vector | None], Mapping[str, float]]
