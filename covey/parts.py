"""Named parts: the files that an update, or the state of a version, consists of."""

from __future__ import annotations

from dataclasses import dataclass

from covey.artifact import Artifact


@dataclass(frozen=True)
class PartFile:
    """The file of one part, under a codec."""

    name: str
    codec: str
    artifact: Artifact
