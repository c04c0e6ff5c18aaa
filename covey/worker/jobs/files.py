"""Files that a worker wrote, as it reports them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from covey.artifact import Artifact, artifact_from_json, artifact_to_json
from covey.parts import PartFile

STACKS = "worker.stacks"
"""In a worker's data directory: what it was doing when it was asked."""
ArtifactField = Annotated[Artifact, PlainSerializer(artifact_to_json), PlainValidator(artifact_from_json)]


@dataclass(frozen=True)
class WrittenFile:
    """A named file, written and synced: a part of an update, or a file of state."""

    name: str
    path: Path
    artifact: ArtifactField
    codec: str = "none"
    layout: str = ""
    """Of a part of an update: SHA-256 (hex) of its layout; empty: bytes of the method's own."""

    @property
    def part(self) -> PartFile:
        """What of it is recorded and sent."""
        return PartFile(self.name, self.codec, self.artifact)
