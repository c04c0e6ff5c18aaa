"""Who needs which file of a run on this node: a file goes with its last holder, and never before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from covey.errors import StoreError


class Droppable(Protocol):
    """Where files are dropped; `covey.storage.files.artifacts.ArtifactFiles`."""

    def release(self, digests: list[str], /) -> None:
        """Drop files; what is not there is passed over."""
        ...


F_co = TypeVar("F_co", bound=Droppable, covariant=True)


class Holders(Generic[F_co]):
    """Counts the holders of each file, and is the only one that drops files.

    Files have the names of their contents. Nodes that average make the same model, bit for bit: what a peer sends may
    be this node's own model, one that stays, and one that is lent, all at once. So whoever makes, brings, keeps or
    reads a file holds it first, before it is there or looked for, and lets go of its own hold only. On the event loop.

    Args:
        files: The run's on this node.
    """

    def __init__(self, files: F_co) -> None:
        self.files = files
        self.told: Callable[[StoreError | None], None] = lambda _: None
        """Told of what keeps files from being dropped; None: nothing does any more."""
        self._holders: Counter[str] = Counter()
        self._to_drop: list[str] = []

    def has(self, digest: str) -> bool:
        """Whether somebody holds this file; it may be on its way still."""
        return digest in self._holders

    def hold(self, digest: str) -> None:
        """One more needs this file."""
        self._holders[digest] += 1

    def release(self, digest: str) -> None:
        """One less needs this file; with the last one it goes. What cannot be dropped now is dropped later."""
        self._holders[digest] -= 1
        if self._holders[digest] <= 0:
            del self._holders[digest]
            self._to_drop.append(digest)
            self._drop()

    @contextmanager
    def holding(self, digest: str) -> Iterator[None]:
        """Hold a file for the time of the context."""
        self.hold(digest)
        try:
            yield
        finally:
            self.release(digest)

    def _drop(self) -> None:
        digests, self._to_drop = self._to_drop, []
        for digest in digests:
            if digest not in self._holders:
                try:
                    self.files.release([digest])
                except StoreError as error:
                    self.told(error)
                    self._to_drop.append(digest)
        if not self._to_drop:
            self.told(None)
