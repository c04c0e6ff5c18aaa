"""Local training: the job, its progress, its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from covey.metrics import Metrics
from covey.worker.jobs.files import WrittenFile


@dataclass(frozen=True)
class AttackOrder:
    """What a drill node does instead of what it should (`covey.aggregation.attacks`)."""

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)
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
class FilterOrder:
    """A filter that the node's operator has put before what leaves (`covey.outgoing.filters`)."""

    name: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)


UNBOUNDED = 1e18
"""A limit that is none, as a number that JSON has."""


@dataclass(frozen=True)
class TrainLimits:
    """What a node's operator allows, as far as only the worker can tell: it depends on the data, or on the method."""

    epochs: float = 1e9
    """Most passes over the data in a round."""
    batch_size: int = 1
    """Least examples of a step."""
    examples: int = 1
    """Least examples behind an update."""
    label_counts: Literal["off", "noisy", "exact"] = "off"
    """What updates may tell of the number of examples of each label (`covey.methods.contract.LabelCounts`)."""
    parameters: float = UNBOUNDED
    """Most parameters of the whole model, those that stay on the node included."""
    representations: bool = False
    """Whether updates may have what the model makes of single examples."""
    max_epsilon: float = UNBOUNDED
    """Most that one run may spend of the privacy of the node's examples."""
    max_delta: float = 1e-5
    """Most delta for which that is so."""
    least_noise: float = 0.0
    """Least noise multiplier."""
    min_k: int = 0
    """Of how few examples statistics may say something; 0: of none at all, there are no statistics."""

    @property
    def wants_privacy(self) -> bool:
        """Whether a run must hide single examples, by noise that the node itself adds."""
        return self.max_epsilon < UNBOUNDED or self.least_noise > 0


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
    num_partitions: int
    """Into how many parts experiment data is cut."""
    base: Path
    """The base model's file."""
    scratch: Mapping[str, Path]
    """Part name to the file to write it into; old contents of any size are overwritten."""
    part: int = -1
    """Which of the parts of the data is this node's; -1: the one of its roster index."""
    evaluate: bool = False
    """Also evaluate the base model on the node's evaluation data, before training."""
    node_paths: Mapping[str, str] = field(default_factory=dict)
    node_options: Mapping[str, JsonValue] = field(default_factory=dict)
    task_options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Options of the task that are this node's own."""
    allow_path: bool = False
    """Whether the node's operator allows a task named by import path."""
    broadcast: str = ""
    """What the codec's `summary` said of the last round, in base64; empty in the first round."""
    phase: int = 1
    """Of the round: the parts to send are those that the run's method declares for it, a file for each in `scratch`."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """What came down beside the model, by part."""
    others: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    """What came down of parts that are collected, by part and node."""
    collected: Path | None = None
    """What stays with a gossip node (`MixJob.kept`): what it has of its peers, where its method learns from that."""
    state: Mapping[str, Path] = field(default_factory=dict)
    """The node's own state of this run, as far as there is any, by the names of `Description.node_state`."""
    out_state: Mapping[str, Path] = field(default_factory=dict)
    """Where to write the new state: a file for each of these names."""
    attack: AttackOrder | None = None
    """On a drill node only."""
    honest: Path | None = None
    """On a drill node of a group: where to write the vector that it would honestly send, raw float32."""
    stall_s: float = 0.0
    """How long it may go without a step; 0: the daemon's own limit only."""
    limits: TrainLimits = TrainLimits()
    """The operator's."""
    private_before: int = 0
    """How many private updates the node has made in this run before."""
    filters: tuple[FilterOrder, ...] = ()
    """What each part passes before it leaves, in this order."""


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is."""

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A finished local training."""

    parts: tuple[WrittenFile, ...]
    examples: int
    """Examples of the node's part of the data: the update's declared weight."""
    steps: int
    seconds: float
    metrics: Metrics
    evaluation: Metrics
    """Of the base model; empty if not asked for, or if the node has no evaluation data."""
    state: tuple[WrittenFile, ...] = ()
    """The files of state that count once this update is accepted."""
    own_state: tuple[WrittenFile, ...] = ()
    """The files of state that count whatever becomes of this update."""
    private: bool = False
    """Whether the update protects the data with noise: then it must never be made again."""
    code: str = ""
    """SHA-256 (hex) of the task's code that trained (`covey.user_code.digest`)."""
    filters: tuple[str, ...] = ()
    """Names and versions of the filters that it passed."""
