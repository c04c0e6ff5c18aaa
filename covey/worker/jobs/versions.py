"""Making a version on a node, from the one before it and the committed change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covey.worker.jobs.files import ArtifactField


@dataclass(frozen=True)
class ApplyJob:
    """Make a version from the one before it and the committed change, on a node."""

    spec_json: str
    layout: str
    base: Path
    change: Path
    out: Path
    allow_path: bool = False


@dataclass(frozen=True)
class ApplyResult:
    """The version that came out."""

    artifact: ArtifactField
    model_sha256: str
