"""What a node has finished: its signed updates, and the files of state that belong to them. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from covey.artifact import INLINE_BYTES, Artifact
from covey.parts import PartFile

State = Mapping[str, Artifact]
"""What a node keeps of a run from update to update: name to file."""


@dataclass(frozen=True)
class HeldPart:
    """A part that was made and is not sent yet: in which phase it may be asked for, and its layout's SHA-256 (hex)."""

    phase: int
    part: PartFile
    layout: str


@dataclass(frozen=True)
class FinishedUpdate:
    """A trained, encoded, signed update.

    Attributes:
        run: The run's id.
        round: Of the assignment.
        base: model_sha256 of the version it was trained from.
        digest: Hex SHA-256 of the statement: the update's name.
        statement: The signed statement's exact bytes.
        signature: Ed25519, 64 bytes.
        parts: In the statement's order.
        delivered: Whether the coordinator has confirmed that it has it.
        private: Whether it must never be made again.
        phase: Of the assignment.
        held: What the same training made for later phases.
    """

    run: str
    round: int
    base: str
    digest: str
    statement: bytes
    signature: bytes
    parts: tuple[PartFile, ...]
    delivered: bool = False
    private: bool = False
    phase: int = 1
    held: tuple[HeldPart, ...] = ()

    @property
    def digests(self) -> set[str]:
        """Of its files."""
        return {part.artifact.digest for part in self.parts}

    @property
    def is_small(self) -> bool:
        """Whether its files come along with its offer."""
        return sum(part.artifact.size_bytes for part in self.parts) <= INLINE_BYTES

    @property
    def needed(self) -> set[str]:
        """Of the files that may still be asked for."""
        return {item.part.artifact.digest for item in self.held} | (set() if self.delivered else self.digests)

    def promises(self, phase: int) -> bool:
        """Whether it comes from a training that made parts for a later phase."""
        return any(item.phase == phase for item in self.held)
