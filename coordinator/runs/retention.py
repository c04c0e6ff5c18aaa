"""Which files a run lets go, and that none goes while a backup is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from covey.errors import Conflict, StoreError
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

    def let_go(self, store: Store) -> None:
        """Drop what was to be dropped since `hold`, and is not on record again: another run may have begun with it.

        While the record cannot be asked all of it stays, until a run lets go of files.
        """
        held, self._held = self._held or [], None
        try:
            self.drop_unrecorded(store, held)
        except StoreError:
            self._postponed |= {*held}

    def drop(self, digests: Iterable[str]) -> None:
        """Drop files that are not on record any more, but for what a run needs; after the backup, if one is made."""
        unneeded = set(digests).difference(self._needed.values())
        if self._held is not None:
            self._held.extend(unneeded)
        else:
            self._files.release(unneeded)

    def drop_unrecorded(self, store: Store, digests: Iterable[str]) -> None:
        """The same of files that may be on record: those stay.

        Raises:
            StoreError: The record cannot be asked; nothing was dropped.
        """
        if wanted := set(digests):
            self.drop(wanted - store.referenced_digests())

    def need(self, run: str, digest: str) -> None:
        """Keep a file for a run until `need_no_more`."""
        self._needed[run] = digest
        if self._held is not None:
            self._held = [other for other in self._held if other != digest]

    def need_no_more(self, store: Store, run: str) -> None:
        """Drop the file that was kept for a run, unless another run needs the same one, or the record. Repeatable."""
        if run in self._needed:
            on_record = store.referenced_digests()  # before anything is forgotten: this may be tried again
            self.drop({self._needed.pop(run)} - on_record)

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
