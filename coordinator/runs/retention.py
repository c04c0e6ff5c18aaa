"""Which files a run lets go, and that none goes while a backup is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from covey.errors import Conflict
from covey.spec import RunSpec
from covey.storage.record.contract import Store


class Droppable(Protocol):
    """Where files are dropped."""

    def release(self, digests: Iterable[str]) -> None:
        """Drop files; what is not there is passed over."""


class Retention:
    """Drops what the record does not need any more. Its methods are called in the record's thread, but `hold`.

    Args:
        files: Where the files are.
    """

    def __init__(self, files: Droppable) -> None:
        self._files = files
        self._held: list[str] | None = None
        """While a backup is made: files that are to be dropped after it."""
        self.in_use: Callable[[], set[str]] = set
        """Digests that updates have that are on their way: what came before is not asked for again, so it stays."""
        self._postponed: set[str] = set()
        """What would have been dropped, and was in use."""
        self._needed: dict[str, str] = {}
        """By run, a file that it needs while it is taken care of, and that no row of the record names."""

    @property
    def is_held(self) -> bool:
        """Whether a backup is being made."""
        return self._held is not None

    def hold(self) -> None:
        """Drop nothing until `let_go`.

        Raises:
            Conflict: Another backup is being made.
        """
        if self._held is not None:
            raise Conflict("another backup is being made")
        self._held = []

    def let_go(self) -> None:
        """Drop what was to be dropped since `hold`."""
        held, self._held = self._held, None
        self._files.release(held or ())

    def drop(self, digests: Iterable[str]) -> None:
        """Drop files, at once or after the backup that is being made."""
        if self._held is not None:
            self._held.extend(digests)
        else:
            self._files.release(digests)

    def need(self, run: str, digest: str) -> None:
        """Keep a file for a run until `need_no_more`."""
        self._needed[run] = digest
        if self._held is not None:
            self._held = [other for other in self._held if other != digest]

    def need_no_more(self, run: str) -> None:
        """Drop the file that was kept for a run, unless another run needs the same one."""
        digest = self._needed.pop(run, None)
        if digest is not None and digest not in self._needed.values():
            self.drop([digest])

    def prune(self, store: Store, run: str, spec: RunSpec, pinned: Sequence[int]) -> None:
        """Let go of a run's files that its `[keep]` does not ask for; those of the versions `pinned` stay.

        So does a first model that nobody can make again: what makes the run's versions again begins with it.
        """
        pinned = [0, *pinned] if spec.model.initial else pinned
        digests = set(
            store.prune(
                run,
                versions=spec.keep.versions,
                updates=spec.keep.updates,
                metric=spec.evaluation.metric,
                goal=spec.evaluation.goal,
                pinned=pinned,
            )
        )
        if self._postponed:
            digests |= self._postponed - store.referenced_digests()
        self._postponed = digests & self.in_use()
        self.drop(digests - self._postponed)
