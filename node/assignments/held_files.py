"""Which files of the coordinator's a node keeps for its runs, and which of its own wait to be dropped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from covey.node.ports import Files, Store

MAX_RUNS = 4
"""Of so many runs files are kept: they can be had again."""


class HeldFiles:
    """The base model of each run, and what came with it, until the next one is here.

    Args:
        files: The node's.
        store: What is needed by it is never dropped.
    """

    def __init__(self, files: Files, store: Store) -> None:
        self._files, self._store = files, store
        self._models: dict[str, str] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._abandoned: list[Path] = []

    def model(self, run: str) -> str:
        """Digest of the file of the run's newest model that is here; empty: none."""
        return self._models.get(run, "")

    def hold(self, run: str, model: str, others: Iterable[str] = ()) -> None:
        """A run's newest model and the files beside it are here, by digest: drop (rename) those of the one before."""
        before = self._held.pop(run, frozenset())
        self._held[run], self._models[run] = frozenset((model, *others)), model
        self._release(before)
        while len(self._held) > MAX_RUNS:
            self.forget(next(iter(self._held)))

    def forget(self, run: str) -> None:
        """The run has ended, or others are newer."""
        self._models.pop(run, None)
        self._release(self._held.pop(run, frozenset()))

    def _release(self, digests: Iterable[str]) -> None:
        self._files.release(set(digests).difference(*self._held.values()) - self._store.needed())

    def abandon(self, paths: Iterable[Path]) -> None:
        """Scratch files of a job that was given up: the worker may still be writing them."""
        self._abandoned.extend(paths)

    def discard_abandoned(self) -> None:
        """Another job is done: nobody writes them any more."""
        while self._abandoned:
            self._files.discard(self._abandoned.pop())
