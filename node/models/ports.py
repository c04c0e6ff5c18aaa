"""What lending needs of the node."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Shelf(Protocol):
    """The files that a node lends."""

    def lend(self, digest: str) -> AbstractContextManager[Path]:
        """Keep a file as it is for the time of the context; where it is.

        Raises:
            NotFound: There is no such file, or it is none that is lent.
        """
        ...

    def check(self, digest: str) -> bool:
        """Whether the file's bytes are those of its name. May wait for the disk."""
        ...
