"""What a run is given: ports to the nodes, the record, the files, the worker, and what the coordinator is.

The daemon, the simulation and the tests implement them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from covey import messages as msg
from covey.artifact import Artifact
from covey.coordinator.obstacle import Obstacle
from covey.coordinator.runs.retention import Retention
from covey.driver.driver import Recorder
from covey.storage.files.spool import Spool
from covey.storage.record.contract import RunRecord, Store
from covey.worker.jobs.operations import Operation

P = ParamSpec("P")
R = TypeVar("R")
J = TypeVar("J")
Progress = TypeVar("Progress")
FOREVER_S = 1e9
"""A deadline where none is kept: longer than any run, and still a number that clocks can add."""


class Nodes(Protocol):
    """The connected nodes."""

    def send(self, node: str, message: msg.CoordinatorMessage) -> bool:
        """Send to a node; False if it is not connected."""

    def nodes(self) -> list[str]:
        """Those that are connected and have said hello, by id."""

    def takes(self, node: str) -> bool:
        """Whether a node, connected or not, may work for the run at all."""

    def __contains__(self, node: object) -> bool:
        """Whether a node is one of them."""

    def peer(self, node: str) -> msg.GossipMember | None:
        """Where other nodes call one of them, and by which key they know it; None: it is not connected."""


class Members(Protocol):
    """Who may take part."""

    @property
    def evicted(self) -> Collection[str]:
        """Who was shut out for good."""

    async def present_key(self, node: str) -> tuple[str, bytes]:
        """Id and raw bytes of the public key with which a node signs now. Raises `NotFound`: it is not enrolled."""


class Record(Protocol):
    """The record, behind its thread."""

    @property
    def store(self) -> Store:
        """The record itself, for what is done in its thread."""

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something in the record's thread; StoreUnavailable: the database is away."""

    async def persist(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, but while something is in its way, wait for that: for decisions that must not be lost."""

    @property
    def obstacle(self) -> Obstacle:
        """What is in the way of this coordinator."""


class Files(Protocol):
    """Model and update files by digest; `covey.storage.files.artifacts.ArtifactFiles` says what each method does."""

    # ruff: noqa: D102

    def path(self, digest: str) -> Path: ...
    def has(self, digest: str) -> bool: ...
    def check(self, digest: str) -> bool: ...
    def offset(self, artifact: Artifact) -> int: ...
    def begin(self, artifact: Artifact) -> Spool: ...
    def put(self, artifact: Artifact, data: bytes) -> Path: ...
    def scratch(self, size_bytes: int) -> Path: ...
    def adopt(self, path: Path, artifact: Artifact) -> Path: ...
    def secure(self, artifact: Artifact, path: Path | None = None) -> None: ...
    def hold(self, owner: Hashable, digests: Iterable[str]) -> None: ...
    def discard(self, path: Path) -> None: ...
    def unfinished(self) -> set[str]: ...
    def forget(self, digests: Iterable[str]) -> None: ...
    def release(self, digests: Iterable[str]) -> None: ...


class Worker(Protocol):
    """The coordinator's worker, which does one job at a time, in the order in which they were given.

    This bounds what a long step of one run does to another. A run has at most one step (preparation, aggregation or
    decision) and one evaluation with the worker, running or waiting, and of all submissions together one is checked
    there at a time. So a step waits for at most these two jobs of each other active run, for its own run's evaluation,
    and for one submission. It never waits for the training of another run.
    """

    async def do(self, operation: Operation[J, R, Progress], job: J) -> R:
        """Have a job done when it is its turn; if the worker dies of it, try again with a new one."""


class Signer(Protocol):
    """The coordinator's signing key."""

    def sign(self, statement: bytes) -> bytes:
        """Sign a statement's exact bytes."""


class Notary(Protocol):
    """Signs what nodes check without a record: with a certificate of the authority, that comes along."""

    def notice(self, run: str, node: str, incarnation: int, reason: str, *, for_good: bool = False) -> msg.GossipNotice:
        """That an incarnation is out of a run; `for_good`: with every other one of its node."""


class RunMetrics(Protocol):
    """What is counted of runs."""

    def entered(self, run: str, node: str, phase: str) -> None:
        """A node's part in its open round of a run is in this phase from now on, or ended so."""

    def count_received(self, node: str, count: int) -> None:
        """So many bytes of an update came from a node."""

    def count_resent(self, node: str, count: int) -> None:
        """So many bytes passed between a node and the coordinator that had passed before."""

    def count_sent(self, node: str, count: int) -> None:
        """So many bytes of a model went to a node."""

    def judged(self, verdicts: Iterable[tuple[str, str]]) -> None:
        """Nodes' answers got their verdicts."""

    def round_ended(self, outcome: str, seconds: float | None = None) -> None:
        """A round was `committed`, `retried` or `failed`; how long it took, where that is known."""

    def phase(self, phase: str) -> AbstractContextManager[object]:
        """Times a phase of a round."""

    def phase_took(self, phase: str, seconds: float) -> None:
        """A phase of a round took so long."""

    def run_ended(self, state: str) -> None:
        """A run ended."""


class Changes(Protocol):
    """Those who watch."""

    def notify(self) -> None:
        """Something worth showing changed."""


class Operator(Protocol):
    """What the operator wants of the coordinator now."""

    @property
    def paused(self) -> bool:
        """Whether no new round is to be opened."""

    @property
    def draining(self) -> bool:
        """Whether the coordinator is to stop once no round is open."""


class Receive(Protocol):
    """How bytes of an upload come in; `covey.wire.transfers.streams.receive` in the daemon."""

    async def __call__(
        self,
        stream: AsyncIterator[memoryview],
        spool: Spool,
        *,
        offset: int,
        stall_s: float,
        on_progress: Callable[[int], None],
    ) -> object:
        """Write a stream into a spool from `offset` on; `on_progress` gets the size of each chunk."""


@dataclass(frozen=True)
class RunServices:
    """What a run, and its mode, are given.

    Attributes:
        federation: Its name.
        nodes: The connected nodes.
        members: Who may take part.
        store: The record.
        files: Model and update files.
        retention: Lets files go.
        worker: Does everything with tensors.
        signer: Signs commits and receipts.
        notary: Signs notices to nodes.
        metrics: What is counted.
        changes: Those who watch.
        operator: What the operator wants.
        clock: Seconds for machines: it begins at a Unix time, and never jumps (`covey.driver.steady_clock`).
        now: Unix time in seconds, for the record.
        started_at: When the coordinator started, by `clock`: every enrolled node is expected back for a while after.
        allow_paths: Whether a run may name a task by its import path.
        data_paths: Where a task finds the coordinator's own data, by name.
        keeps_deadlines: Whether nodes that are silent for too long are given up.
        record_events: Makes what records the events of a run; None: nothing does.
    """

    federation: str
    nodes: Nodes
    members: Members
    store: Record
    files: Files
    retention: Retention
    worker: Worker
    signer: Signer
    notary: Notary
    metrics: RunMetrics
    changes: Changes
    operator: Operator
    clock: Callable[[], float]
    started_at: float
    allow_paths: bool = False
    data_paths: Mapping[str, str] = field(default_factory=dict)
    keeps_deadlines: bool = True
    now: Callable[[], float] = time.time
    record_events: Callable[[RunRecord], Recorder] | None = None
