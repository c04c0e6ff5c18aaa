"""What a federation is asked for, as plain frozen values.

Times are Unix seconds, and None where something has not happened yet. Sizes are bytes. Metrics and other open-ended
values are mappings as JSON has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from covey.artifact import Artifact
from covey.client.coordinator_values import (
    Admin,
    Backup,
    Event,
    Json,
    Node,
    NodeDetail,
    NodeWork,
    Status,
    Study,
    Token,
    TokenInfo,
)

__all__ = [
    "ENDED",
    "Admin",
    "Backup",
    "Change",
    "Contribution",
    "Deleted",
    "Event",
    "Json",
    "LogLine",
    "Node",
    "NodeDetail",
    "NodeProgress",
    "NodeWork",
    "Round",
    "RoundDetail",
    "Run",
    "Status",
    "Study",
    "Token",
    "TokenInfo",
    "Update",
    "Version",
]
ENDED = ("completed", "failed", "stopped")
"""States in which a run stays."""


@dataclass(frozen=True)
class Run:
    """A run and how far it is."""

    run: str
    """Its id."""
    name: str
    mode: str
    state: str
    """`queued`, `running`, `completed`, `failed` or `stopped`; read while no coordinator runs: `interrupted`, which its
    next start ends, instead of `running`."""
    reason: str = ""
    """Why it is in that state, or what it waits for."""
    rounds_committed: int = 0
    """Versions made."""
    rounds: int = 0
    """How many rounds end it; 0 where it is counted in updates."""
    model_version: int = 0
    model_sha256: str = ""
    """Of the newest version; empty before there is one."""
    metrics: Json = field(default_factory=dict)
    """Of the newest evaluated version."""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    updates_decided: int = 0
    updates: int = 0
    """How many decisions end it; 0 where it is counted in rounds."""
    spec: Json = field(default_factory=dict)
    """The specification."""
    roster: tuple[str, ...] = ()
    """Nodes in the order of their first round: the first thousand names; `contributions` has all of them."""
    roster_size: int = 0
    """How many there are in all."""
    missing: Json = field(default_factory=dict)
    """Why metrics have no value, by name."""
    steps_done: int = 0
    """Of a gossip run: steps of the node that is furthest back, of those that stated any."""
    steps: int = 0
    """How many each node is to do; 0 where it is counted otherwise."""

    @property
    def ended(self) -> bool:
        """Whether it stays as it is."""
        return self.state in ENDED

    @property
    def study(self) -> str:
        """The study that it belongs to; empty: none."""
        return str(self.spec.get("study", ""))

    @property
    def full_name(self) -> str:
        """Its name; of a run of a study STUDY/NAME."""
        return f"{self.study}/{self.name}" if self.study else self.name

    @property
    def parent(self) -> str:
        """The run and the version whose model it began with, RUN@VERSION; empty: there is none."""
        section = self.spec.get("model", {})
        return str(section.get("parent", "")) if isinstance(section, Mapping) else ""

    @property
    def unit(self) -> Literal["rounds", "updates", "steps"]:
        """What it is counted in; of a mode that only a newer coordinator has, rounds."""
        from covey.spec.modes import DEFAULT, MODES  # the names of the fields are needed where specifications are not

        return MODES.get(self.mode, MODES[DEFAULT]).unit

    @property
    def is_coordinated(self) -> bool:
        """Whether models pass through the coordinator; else it observes."""
        from covey.spec.modes import DEFAULT, MODES

        return MODES.get(self.mode, MODES[DEFAULT]).coordinated

    @property
    def done(self) -> int:
        """How many rounds are committed, updates decided on, or steps done."""
        return {"updates": self.updates_decided, "steps": self.steps_done}.get(self.unit, self.rounds_committed)

    @property
    def whole(self) -> int:
        """How many rounds, updates or steps end it."""
        return {"updates": self.updates, "steps": self.steps}.get(self.unit, self.rounds)


@dataclass(frozen=True)
class Round:
    """A round; of a run that is counted in updates: one assignment of one node."""

    round: int
    state: str
    """`collecting`, `aggregating`, `committed`, `failed`, or `decided` (an update that was decided on by itself)."""
    attempt: int = 1
    started_at: float | None = None
    committed_at: float | None = None
    seconds: float = 0.0
    """From its start to its commit; 0 before that."""
    accepted: int = 0
    """Updates."""
    rejected: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    metrics: Json = field(default_factory=dict)
    """Of the version that it made."""
    reason: str = ""
    invited: tuple[str, ...] = ()
    base_version: int = 0
    """The version that it starts from."""
    version: int = 0
    """The version that it made, or that its update went into; 0: none (yet)."""
    arrival: int = 0
    """The order in which updates were recorded, from 1, where that counts; 0: there is none yet."""
    declined: int = 0
    """Nodes that said that they send no update."""
    lost: int = 0
    """Nodes without a connection."""
    late: int = 0
    """Nodes with one, which did not answer in time."""
    received: int = 0
    """Nodes whose update is here, and was not decided on yet."""
    last_reason: str = ""
    """Of the newest answer that is no update that counts: which node, its verdict, and why."""
    phase: int = 1
    """Which answers it waits for now, or waited for last; a method that asks once a round has one."""
    missing: Json = field(default_factory=dict)
    """Why metrics have no value, by name."""


@dataclass(frozen=True)
class Update:
    """What one node answered in a round."""

    node: str
    verdict: str
    """`received`, `accepted`, `rejected`, `held`, `declined`, `lost` or `late`."""
    reason: str = ""
    digest: str = ""
    """SHA-256 (hex) of the signed statement; empty where there is none."""
    bytes: int = 0
    weight: float = 0.0
    """As the node declared it."""
    share: float = 0.0
    """The share it had in the result."""
    numbers: Json = field(default_factory=dict)
    """Of the verdict."""
    metrics: Json = field(default_factory=dict)
    """Of the local training."""
    received_at: float | None = None
    base_sha256: str = ""
    key_id: str = ""
    code: str = ""
    """SHA-256 (hex) of the task's code that trained, as the node signed it; empty: it did not say."""
    phase: int = 1
    """Of the round: which of the node's answers this is."""
    missing: Json = field(default_factory=dict)
    """Why metrics have no value, by name."""


@dataclass(frozen=True)
class Version:
    """A committed version of the model."""

    version: int
    model_sha256: str
    artifact: Artifact
    """Its safetensors file."""
    metrics: Json = field(default_factory=dict)
    created_at: float = 0.0
    kept: bool = True
    """Whether the file is still on the coordinator's disk."""
    members: tuple[str, ...] = ()
    members_count: int = 0
    """In a run without a global model: the nodes whose own files the version keeps."""
    missing: Json = field(default_factory=dict)
    """Why metrics have no value, by name."""

    @property
    def digest(self) -> str:
        """Names the file."""
        return self.artifact.digest

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.artifact.size_bytes


@dataclass(frozen=True)
class RoundDetail:
    """A round, every node's answer, and the version that it made (None: none)."""

    round: Round
    updates: tuple[Update, ...] = ()
    version: Version | None = None
    nodes: tuple[NodeProgress, ...] = ()
    """Of an open round: what each node does now."""
    capped: Json = field(default_factory=dict)
    """The nodes that count less than their examples would have them (`weights.max_share`), with the share of these."""
    bytes_resent_up: int = 0
    """Of updates, because uploads broke: as the nodes say."""
    bytes_resent_down: int = 0
    """Of models, because downloads broke."""
    nodes_count: int = 0
    """As in `Change`."""


@dataclass(frozen=True)
class NodeProgress:
    """What a node of the open round does now."""

    node: str
    phase: str
    """`invited`, `queued`, `downloading`, `training`, `uploading` or `away`; a verdict, where its part has ended."""
    step: int = 0
    steps: int = 0
    """Of the local training; of a transfer, MiB; 0: none is on."""
    loss: float = 0.0
    seconds: float = 0.0
    since: float | None = None
    """When this phase began."""
    bytes_received: int = 0
    """From the node, since it was invited."""
    bytes_sent: int = 0


@dataclass(frozen=True)
class Contribution:
    """What one node did in a run's rounds (or assignments); a round with several phases counts once."""

    node: str
    asked: int = 0
    """Rounds in which it answered, or was given up."""
    accepted: int = 0
    """Rounds in which its update was accepted."""
    rejected: int = 0
    declined: int = 0
    lost: int = 0
    late: int = 0
    last_round: int = 0
    """The newest round in which it had no update that counts; 0: there is none."""
    last_verdict: str = ""
    last_reason: str = ""

    @property
    def is_short(self) -> bool:
        """Whether it contributed to less than it was asked for."""
        return self.rejected + self.declined + self.lost + self.late > 0 and self.accepted < self.asked


@dataclass(frozen=True)
class Change:
    """A run as it is now, the rounds that changed since the last `Change`, and what its nodes do."""

    run: Run
    rounds: tuple[Round, ...] = ()
    nodes: tuple[NodeProgress, ...] = ()
    """Of more than 100, those that began something else last."""
    nodes_count: int = 0
    """How many nodes the open round has."""


@dataclass(frozen=True)
class LogLine:
    """Something that happened to a run."""

    at: float
    what: str
    """`opened`, `committed`, `decided` or `failed` (a round), a verdict (of a node), or the kind of an event."""
    round: int = 0
    """0: it is not about a round."""
    node: str = ""
    text: str = ""


@dataclass(frozen=True)
class Deleted:
    """A run that was deleted."""

    run: str
    files: int = 0
    """Model and update files that no other run needs, and its event log's."""
    bytes: int = 0
