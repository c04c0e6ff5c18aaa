"""What daemon and worker say to each other: frozen jobs and results, and their JSON form. Free of torch.

One JSON object a line. To the worker: `{"id", "op", "args"}` and `{"cancel": id}`. From it:
`{"id", "progress"}`, `{"id", "result"}` and `{"id", "error": {"code", "message"}}`. Tensors travel as files,
named by their paths.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import JsonValue, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from covey.artifact import Artifact
from covey.errors import WorkerError

Metrics = dict[str, tuple[float, float]]
"""Metric name to (total, count): sums that can be merged over nodes, never ready means."""
Options = Mapping[str, JsonValue]


def artifact_to_json(artifact: Artifact) -> dict[str, JsonValue]:
    """An artifact as `{"digest", "size_bytes", "chunk_sha256"}`, the table of chunk digests in base64."""
    table = base64.b64encode(artifact.chunk_sha256).decode("ascii")
    return {"digest": artifact.digest, "size_bytes": artifact.size_bytes, "chunk_sha256": table}


def artifact_from_json(value: Any) -> Artifact:
    """The inverse of `artifact_to_json`; an artifact is passed through.

    Raises:
        WorkerError: Not the JSON form of an artifact.
    """
    if isinstance(value, Artifact):
        return value
    try:
        table = base64.b64decode(value["chunk_sha256"], validate=True)
        return Artifact(str(value["digest"]), int(value["size_bytes"]), table)
    except (KeyError, TypeError, ValueError) as error:
        raise WorkerError(f"not an artifact: {error!r}") from error


ArtifactField = Annotated[Artifact, PlainSerializer(artifact_to_json), PlainValidator(artifact_from_json)]


@dataclass(frozen=True)
class HelloResult:
    """What the worker computes on."""

    device: str
    """`cpu`, or `cuda (NAME)`."""


@dataclass(frozen=True)
class InitialJob:
    """Make the first model of a run from its seed."""

    run: str
    spec_json: str
    out: Path
    """Where to write the model file (an existing file is overwritten)."""
    allow_path: bool = False


@dataclass(frozen=True)
class InitialResult:
    """The first model of a run."""

    layout: str
    """Canonical JSON of the layout."""
    artifact: ArtifactField
    model_sha256: str


@dataclass(frozen=True)
class AttackOrder:
    """What a drill node does instead of what it should (`covey.aggregation.attacks`)."""

    name: str
    options: Options = field(default_factory=dict)
    group: Mapping[str, Path] = field(default_factory=dict)
    """Of an attack that knows of others: node id to the raw float32 vector that it would honestly have sent. The worker
    waits for files that are not there yet."""
    nodes: int = 0
    """How many nodes the attack reckons with, adversaries included; 0: as many as the data are cut for."""
    attackers: int = 0
    """How many of them are adversaries; 0: not known."""
    memory: Path | None = None
    """A folder, this node's and run's own, for what the attack remembers from round to round; None: nothing."""
    wait_s: float = 60.0
    """How long to wait for the files of `group`; then the attack makes do with those that are there."""


@dataclass(frozen=True)
class TrainJob:
    """Train locally from a base model, and write the update's parts."""

    run: str
    spec_json: str
    layout: str
    """Canonical JSON of the run's layout; the task's own model must have the same."""
    round: int
    """Counts from 1."""
    roster_index: int
    parts: int
    """Into how many parts experiment data is cut."""
    base: Path
    """The base model's file."""
    scratch: Mapping[str, Path]
    """Part name to the file to write it into; old contents of any size are overwritten."""
    evaluate: bool = False
    """Also evaluate the base model on the node's evaluation data, before training."""
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Options = field(default_factory=dict)
    allow_path: bool = False
    """Whether the node's operator allows a task named by import path."""
    broadcast: str = ""
    """What the codec's `summary` said of the last round, in base64; empty in the first round."""
    state: Mapping[str, Path] = field(default_factory=dict)
    """The node's own state of this run (`residual`, `momentum`) after its last accepted update, raw float32; empty
    at first."""
    out_state: Mapping[str, Path] = field(default_factory=dict)
    """Where to write the state that counts if this update is accepted: a file for each name in `NODE_STATE`."""
    attack: AttackOrder | None = None
    """On a drill node only."""
    honest: Path | None = None
    """On a drill node of a group: where to write the vector that it would honestly send, raw float32."""


NODE_STATE = ("residual", "momentum")
"""What a node may keep between accepted updates, each float32 `[d]`: what the codec lost, and worker momentum."""


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is."""

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class TrainedPart:
    """One part of an update, written and synced."""

    name: str
    codec: str
    path: Path
    artifact: ArtifactField


@dataclass(frozen=True)
class StateFile:
    """A file of state that was written and synced: a vector of float32, or a few bytes."""

    name: str
    path: Path
    artifact: ArtifactField


@dataclass(frozen=True)
class TrainResult:
    """A finished local training."""

    parts: tuple[TrainedPart, ...]
    examples: int
    """Examples of the node's part of the data: the update's declared weight."""
    steps: int
    seconds: float
    metrics: Metrics
    evaluation: Metrics
    """Of the base model; empty if not asked for, or if the node has no evaluation data."""
    state: tuple[StateFile, ...] = ()
    """The state files that were written to `TrainJob.out_state`: those the run uses."""
    private: bool = False
    """Whether the update protects the data with noise: then it must never be made again."""


@dataclass(frozen=True)
class EvaluateJob:
    """Evaluate a model file."""

    run: str
    spec_json: str
    model: Path
    where: Literal["central", "node"]
    """On the task's central data, or on the node's own evaluation data."""
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Options = field(default_factory=dict)
    allow_path: bool = False


@dataclass(frozen=True)
class AggregateRow:
    """One node's update: its declared weight, its parts' files, and what it reported of its training."""

    node: str
    weight: float
    parts: Mapping[str, Path]
    loss: float | None = None
    """Mean training loss; None: not reported."""


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


@dataclass(frozen=True)
class ApplyJob:
    """Make a version from the one before it and the committed change, on a node."""

    spec_json: str
    layout: str
    base: Path
    change: Path
    out: Path


@dataclass(frozen=True)
class ApplyResult:
    """The version that came out."""

    artifact: ArtifactField
    model_sha256: str


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
    """The next version, or that too few updates are left for the rule (`enough` is false: no files)."""

    enough: bool
    verdicts: tuple[RowVerdict, ...]
    """One for every row, in order."""
    artifact: ArtifactField | None = None
    model_sha256: str = ""
    state: tuple[StateFile, ...] = ()
    seconds: float = 0.0
    rule: str = ""
    """The name of the rule that was applied: the run's, or its fallback."""
    metrics: Metrics = field(default_factory=dict)
    """Of the new version, known without evaluating it: the privacy spent."""


@dataclass(frozen=True)
class CheckJob:
    """Train one local batch, to see whether this node can take part."""

    spec_json: str
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Options = field(default_factory=dict)
    allow_path: bool = False


@dataclass(frozen=True)
class CheckResult:
    """What one local batch showed."""

    examples: int
    layout_sha256: str
    parameters: int
    loss: float
    seconds_per_step: float
    device: str


@dataclass(frozen=True)
class DescribeJob:
    """Validate all that a specification names."""

    spec_json: str
    allow_path: bool = False


@dataclass(frozen=True)
class Description:
    """What the coordinator must know of a run before it starts."""

    central: bool
    """Whether the task has central evaluation data here."""
    aggregator_min: int
    """How many updates the aggregator (or its fallback) needs."""
    slots: tuple[str, ...]
    """Names of the state files that each version has beside the model: `optimizer/SLOT`, `aggregator/NAME`, `change`
    (the committed change from the version before, in the downlink's codec), `residual` (what that codec lost),
    `broadcast` (the codec's summary)."""
    part_bytes: int = 0
    """Size in bytes of an update's encoded model part: exact, or the most there may be."""
    part_exact: bool = True
    node_state: tuple[str, ...] = ()
    """Which of `NODE_STATE` the run uses."""


T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(value: object) -> Any:
    """A job or result as plain JSON values."""
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json")


def from_json(kind: type[T], value: object) -> T:
    """The inverse of `to_json`.

    Raises:
        WorkerError: The value is not of this kind; the message says where.
    """
    adapter = _adapter(cast(Any, kind))
    try:
        found: T = adapter.validate_python(value)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise WorkerError(f"not a {kind.__name__}: {wrong}") from error
    return found
