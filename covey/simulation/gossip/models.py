"""Model files of virtual nodes: nodes share them; when the last lets go of one, another model is written there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _kept(path: Path) -> None:
    """A file that is none of the folder's stays as it is."""


@dataclass
class Model:
    """A model file, and how many hold it."""

    path: Path
    sha256: str
    holders: int = 1
    unused: Callable[[Path], None] = _kept
    """Told when nobody holds it any more."""

    def hold(self) -> Model:
        """One more holds it."""
        self.holders += 1
        return self

    def release(self) -> None:
        """One less holds it; the last one gives the file up."""
        self.holders -= 1
        if not self.holders:
            self.unused(self.path)


class ModelFolder:
    """Files that are written over and over: to make and to remove one costs more than to fill it with a small model.

    Args:
        folder: Where; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._unused: list[Path] = []
        self._numbers = itertools.count()

    def new(self) -> Path:
        """A path whose file, where there is one, nobody needs."""
        return self._unused.pop() if self._unused else self._folder / str(next(self._numbers))

    def drop(self, path: Path) -> None:
        """Nobody needs a file any more."""
        self._unused.append(path)

    def model(self, path: Path, sha256: str) -> Model:
        """The model in a new file."""
        return Model(path, sha256, unused=self.drop)
