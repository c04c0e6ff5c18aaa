"""Model files of virtual nodes: a file that several of them use is dropped when the last one lets go of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Model:
    """A model file, and how many hold it."""

    path: Path
    sha256: str
    holders: int = 1

    def hold(self) -> Model:
        """One more holds it."""
        self.holders += 1
        return self

    def release(self) -> None:
        """One less holds it; the last one drops the file."""
        self.holders -= 1
        if not self.holders:
            self.path.unlink(missing_ok=True)


@dataclass
class ModelFolder:
    """Where new models get their names."""

    folder: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new(self) -> Path:
        """A path that no model has had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{next(self._numbers)}.safetensors"
