"""What a node's core needs of the world: each port has one small contract, and any class of that form will do.

The daemon puts gRPC, files and a child process behind them; the simulation and the tests put memory there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from covey import messages as msg
from covey.artifact import Artifact
from covey.node.updates import FinishedUpdate, State
from covey.worker.jobs.operations import Operation

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
OnBytes = Callable[[int], None]
"""Called on the event loop with the number of bytes of each chunk as it passes."""


class Link(Protocol):
    """The session with the coordinator."""

    @property
    def up(self) -> bool:
        """Whether there is a session now."""
        ...

    def send(self, message: msg.NodeMessage) -> None:
        """Send in the present session; without one the message is dropped (all can be sent again)."""
        ...

    async def connected(self) -> None:
        """Wait until there is a session."""
        ...


class Bulk(Protocol):
    """Granted transfers of files, each from where it broke before."""

    async def download(self, artifact: Artifact, on_bytes: OnBytes) -> None:
        """Bring a file of the coordinator's into this node's files.

        Raises:
            TransferError: It broke off, or the grant is gone; asked for again, it goes on.
            StoreError: The disk is full, or refuses.
        """
        ...

    async def upload(self, path: Path, artifact: Artifact, offset: int, on_bytes: OnBytes) -> None:
        """Send a file of this node's from a byte on.

        Raises:
            TransferError: It broke off, or the grant is gone; offered again, it goes on.
            StoreError: The file cannot be read.
        """
        ...


class Files(Protocol):
    """This node's files by digest; `covey.storage.files.artifacts.ArtifactFiles` says what each member does."""

    # ruff: noqa: D102

    def path(self, digest: str) -> Path: ...
    def has(self, digest: str) -> bool: ...
    def free_bytes(self) -> int: ...
    def check(self, digest: str) -> bool: ...
    def offset(self, artifact: Artifact) -> int: ...
    def put(self, artifact: Artifact, data: bytes) -> Path: ...
    def scratch(self, size_bytes: int) -> Path: ...
    def adopt(self, path: Path, artifact: Artifact, *, durable: bool = True) -> Path: ...
    def discard(self, path: Path) -> None: ...
    def release(self, digests: Iterable[str]) -> None: ...


class Worker(Protocol):
    """What does everything with tensors."""

    async def do(self, operation: Operation[J, R, P], job: J, on_progress: Callable[[P], object] | None = None) -> R:
        """Have a job done; errors as `covey.worker.client.supervisor.WorkerSupervisor.do`.

        Cancelling the call stops the job; its files may still be written until another job is done.
        """
        ...


class Store(Protocol):
    """What a node must not forget: each run's newest finished update, and its local state. Methods may block."""

    def finished(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """The finished update of a round, phase and base (model_sha256), if there is one. Does not block."""
        ...

    def holding(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """The finished update of an earlier phase whose training made what this phase asks for. Does not block."""
        ...

    def save(self, update: FinishedUpdate, state: State, own: State) -> None:
        """Note a finished update, and the state that it brings, durably. Its files are there already.

        Args:
            update: The update.
            state: What counts once it is accepted.
            own: What counts whatever becomes of it.
        """
        ...

    def private_terms(self, run: str, given: str) -> str:
        """The terms of privacy under which a run began on this node: those given, if it begins now; durable."""
        ...

    def private_updates(self, run: str) -> int:
        """How many private updates of a run were saved, of all rounds: never fewer than before. Does not block."""
        ...

    def delivered(self, update: FinishedUpdate) -> None:
        """Note that the coordinator has it. If the note is lost, the update is offered once more."""
        ...

    def keep_receipt(self, run: str, statement: bytes, signature: bytes) -> None:
        """Keep what the coordinator signed for an update, for audits; a store of no lasting use need not."""
        ...

    def drop_update(self, run: str) -> None:
        """Forget a run's finished update: its files are gone."""
        ...

    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        """The state to train from in round `number`, now that the run has decided on this node's newest update.

        What a training of the same round has left is passed over: that training is done again.
        """
        ...

    def lost_before(self, run: str) -> int:
        """The round before whose training what was kept of the run was found to be gone; 0: not in its newest round."""
        ...

    def own_state(self, run: str) -> State:
        """The newest state that counts whatever became of this node's updates. Does not block.

        Of a run that has ended: the tensors of its model that stay on this node, where they are kept still.
        """
        ...

    def forget(self, run: str) -> None:
        """The run has ended: its state and its update are of no more use, but for an update that must stay private.

        Tensors of its model that stay on this node are kept, of the newest few runs.
        """
        ...

    def needed(self) -> set[str]:
        """Digests of the files that undelivered updates and state consist of. Does not block."""
        ...


class Clock(Protocol):
    """Time, for waiting and for reports."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""
        ...
