"""Mixing models of peers: the job and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covey.worker.jobs.files import ArtifactField


@dataclass(frozen=True)
class Portion:
    """A peer's model file, and its part of the mixture."""

    model: Path
    share: float


@dataclass(frozen=True)
class MixJob:
    """Make base + sum_i share_i (model_i - base) + scale x change, as a file."""

    layout: str
    """Canonical JSON of the run's layout."""
    base: Path
    """The node's own model file; its buffers are kept."""
    out: Path
    portions: tuple[Portion, ...] = ()
    change: Path | None = None
    """What local training did: raw float32 `[d]`."""
    scale: float = 1.0
    buffers: Path | None = None
    """The buffers after local training, raw; None: those of the base."""
    synced: bool = True
    """Whether the file must survive a power cut: then the job waits for the disk."""


@dataclass(frozen=True)
class MixResult:
    """The mixture."""

    artifact: ArtifactField
    model_sha256: str
    moved: float
    """How far it is from the base: the Euclidean norm of the difference of the parameters."""
    refused: tuple[int, ...] = ()
    """Positions of portions that are no finite models of this run: their shares stayed with the base."""
