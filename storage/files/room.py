"""Room for the files of one job: for all of them, or for none."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class Scratch(Protocol):
    """Where scratch files are made; `covey.storage.files.artifacts.ArtifactFiles` says what the methods do."""

    def scratch(self, size_bytes: int) -> Path:
        """A name for a file that the worker writes."""

    def discard(self, path: Path) -> None:
        """Drop it."""


def scratch_files(files: Scratch, sizes_bytes: Mapping[K, int]) -> dict[K, Path]:
    """A scratch file for each name, with the sizes that they are expected to have.

    Raises:
        StoreError: As `scratch`; what was made for the others is dropped.
    """
    paths: dict[K, Path] = {}
    try:
        for name, size_bytes in sizes_bytes.items():
            paths[name] = files.scratch(size_bytes)
    except BaseException:
        for path in paths.values():
            files.discard(path)
        raise
    return paths
