"""What an active run needs of its mode: a pure machine, and what is done for the actions that are the mode's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from covey import messages as msg
from covey.artifact import Artifact
from covey.coordinator.runs.assignments import AssignmentInputs
from covey.coordinator.runs.facts import Counted, NodeProgress
from covey.coordinator.runs.steps.preparation import Prepared
from covey.storage.record.contract import VersionRecord


class RunMachine(Protocol):
    """A mode's pure state machine (`covey.driver.driver.Machine`) with what a run asks of it."""

    @property
    def state(self) -> str:
        """What the run is doing: `idle` (no work is out), `finishing`, `done`, or a state of the mode's own."""

    @property
    def done(self) -> bool:
        """Whether the run is in a terminal state."""

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest; None: only an event can move it."""

    @property
    def committed(self) -> int:
        """The newest committed version."""

    def handle(self, event: Any) -> Sequence[Any]:
        """Take one event; what is to be done, in order."""

    def collects(self, node: str, number: int) -> bool:
        """Whether this node works, or has worked, on this round while it is open."""

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's answer for this round is still to come."""


class Mode(ABC):
    """One mode's part in one run."""

    counts: Counted
    """What specifications of this mode ask for so many of."""

    @abstractmethod
    async def begin(self, prepared: Prepared, expected: dict[str, float]) -> RunMachine:
        """The machine of the run, as the record knows it.

        Args:
            prepared: The run.
            expected: The nodes that are here or may come back, with the time each was last seen.
        """

    @abstractmethod
    async def do(self, action: Any) -> None:
        """Do what the machine asks for, where that is the mode's own (`SharedAction`s are done by the run)."""

    @abstractmethod
    def open_round(self, node: str) -> int:
        """The number of the round that an answer of this node would be for now; 0: none."""

    def open_phase(self, node: str) -> int:
        """Which answer of this node the open round waits for: 1 where a round has only one."""
        return 1

    @abstractmethod
    def base_of(self, node: str, number: int) -> VersionRecord:
        """The version that this node's update for a round that expects it starts from.

        Raises:
            Late: The round does not expect it any more.
        """

    @abstractmethod
    def served(self, node: str, digest: str) -> Artifact | None:
        """The file of this digest, if the node may download it now."""

    def inputs(self, node: str) -> AssignmentInputs:
        """What this node's assignments carry beside the model."""
        return AssignmentInputs()

    def waits_for(self) -> str:
        """Who of those that the run waits for now is away, in words; empty: nobody."""
        return ""

    async def stated(self, node: str, message: msg.GossipSaid) -> None:  # noqa: B027 (most modes hear nothing)
        """A node says, signed, how far it is; only in modes whose nodes work without this coordinator."""

    @abstractmethod
    def moved(self, node: str, progress: NodeProgress) -> None:
        """A node message how far it is, other than that it works for another run first."""
