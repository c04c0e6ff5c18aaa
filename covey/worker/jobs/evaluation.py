"""Evaluating a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from covey.metrics import Metrics
from covey.worker.jobs.training import FilterOrder, TrainLimits


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate a model file."""

    run: str
    spec_json: str
    model: Path
    where: Literal["central", "node"]
    """On the task's central data, or on the node's own evaluation data."""
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Mapping[str, JsonValue] = field(default_factory=dict)
    allow_path: bool = False
    layout: str = ""
    """The run's layout as text; empty: that of the task's model, as on the coordinator."""
    state: Mapping[str, Path] = field(default_factory=dict)
    """On a node: the state that counts whatever became of its updates, as in `TrainJob`."""
    task_options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Options of the task that are this node's own."""
    stall_s: float = 0.0
    """How long it may go without a step; 0: the daemon's own limit only."""
    limits: TrainLimits = field(default_factory=TrainLimits)
    """On a node: the operator's."""
    filters: tuple[FilterOrder, ...] = ()
    """On a node: what the metrics pass before they leave, in this order."""


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation came to, with the metrics that are missing; none where there are no such data."""

    metrics: Metrics
