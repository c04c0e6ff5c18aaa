"""What is asked of a worker about a run as a whole: is it sound, its first model, can this machine take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from covey.metrics import Metrics
from covey.parts import DeclaredPart
from covey.worker.jobs.files import ArtifactField
from covey.worker.jobs.training import FilterOrder, TrainLimits


@dataclass(frozen=True)
class HelloJob:
    """Say what this worker computes on; answered when it is ready."""


@dataclass(frozen=True)
class HelloResult:
    """What the worker computes on."""

    device: str
    """`cpu`, or `cuda (NAME)`."""
    confinement: str = ""
    """What the worker cannot read, and by what; or that it is not confined, and why. Empty: nothing is hidden."""
    gpu_memory_bytes: int = 0
    """That are free on its GPU; 0: it has none."""


@dataclass(frozen=True)
class DescribeJob:
    """Validate all that a specification names."""

    spec_json: str
    allow_path: bool = False
    data_paths: Mapping[str, str] = field(default_factory=dict)
    """Where the task finds the coordinator's own data, by name."""
    submitted: bool = False
    """Nobody has looked at the model yet: also make it, and look at its values."""
    written: tuple[str, ...] = ()
    """The keys that the user wrote, with dots: those that nothing reads are refused."""


@dataclass(frozen=True)
class PrivacyForecast:
    """What a run in rounds will have spent of its privacy when it ends, if all its rounds are made.

    Attributes:
        epsilon: See `covey.learning.privacy.PrivacySpent`.
        delta: The same.
        unit: Whose contribution is hidden.
        rounds: After so many rounds: all, or those that [stop] epsilon leaves.
        is_secret: Whether the noise is drawn from a secret; else the run is a simulation of a private one.
    """

    epsilon: float
    delta: float
    unit: Literal["example", "node"]
    rounds: int
    is_secret: bool = True


@dataclass(frozen=True)
class Description:
    """What the coordinator must know of a run before it starts."""

    central: bool
    """Whether the task has central evaluation data here."""
    aggregator_min: int
    """How many updates the aggregator (or its fallback) needs."""
    slots: Mapping[str, int]
    """The files that each version has beside the model, and about how large they are in bytes: `optimizer/SLOT`,
    `aggregator/NAME`, `change` (the committed change from the version before, in the downlink's codec), `residual`
    (what that codec lost), `broadcast` (the codec's summary), and what the method keeps (`covey.parts.slot`)."""
    parts: tuple[DeclaredPart, ...] = ()
    """What the method declares, in the order in which parts are signed."""
    node_state: tuple[str, ...] = ()
    """What the run's nodes keep: what the stages of `covey.outgoing` keep, and the method."""
    phases: int = 1
    """How many answers of a node a round may have."""
    global_model: bool = True
    """Whether there is a model that is the same for all; without one every version has the first model's file."""
    model_bytes: int = 0
    """How large a version's file is; 0: not said."""
    sharing: str = ""
    """What of the model is shared, and what is not; empty: all of it is shared."""
    notes: tuple[str, ...] = ()
    """What one should know who submits it."""
    last_round: int | None = None
    """The run ends after this round, where that is before its number of rounds."""
    why_last: str = ""
    """Why it ends there."""
    privacy: PrivacyForecast | None = None
    """What it will have spent then; None: nothing that is accounted for."""

    def noted(self) -> dict[str, Any]:
        """What is on record with the run's submission, by name."""
        privacy = self.privacy and asdict(self.privacy)
        return {name: value for name, value in (("exchange", self.sharing), ("privacy", privacy)) if value}


@dataclass(frozen=True)
class InitialJob:
    """Make the first model of a run: from its seed, or from a file."""

    run: str
    spec_json: str
    out: Path
    """Where to write the model file (an existing file is overwritten)."""
    allow_path: bool = False
    task_options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Options of the task that are one node's own."""
    source: Path | None = None
    """A safetensors file with the model's values; None: they are drawn from the seed."""


@dataclass(frozen=True)
class InitialResult:
    """The first model of a run."""

    layout: str
    """Canonical JSON of the layout."""
    artifact: ArtifactField
    model_sha256: str
    stays: int = 0
    """How many tensors of the model are not in it, as they stay on each node."""


@dataclass(frozen=True)
class CheckJob:
    """Train one local batch, to see whether this node can take part."""

    spec_json: str
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Mapping[str, JsonValue] = field(default_factory=dict)
    task_options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Options of the task that are this node's own."""
    allow_path: bool = False
    limits: TrainLimits = field(default_factory=TrainLimits)
    """The operator's."""
    filters: tuple[FilterOrder, ...] = ()
    """The operator's filters on what leaves."""


@dataclass(frozen=True)
class CheckResult:
    """What one local batch showed."""

    examples: int
    layout_sha256: str
    parameters: int
    loss: float
    seconds_per_step: float
    device: str
    sharing: str = ""
    """What of the model is shared, and what is not; empty: all of it is shared."""
    evaluation: Metrics = field(default_factory=dict)
    """Of one batch of the node's evaluation data, with the metrics that are missing."""
    privacy: str = ""
    """What the run will have spent of its privacy when it ends, in words; empty: nothing that is accounted for."""
    warnings: tuple[str, ...] = ()
    """What of the run may go wrong here: with so many examples, or with the operator's floor."""
    filters: tuple[str, ...] = ()
    """Names and versions of the filters that let what one step has changed pass."""
