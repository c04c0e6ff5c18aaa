"""Where a simulation keeps files and records of nodes: nothing waits for the disk, an upload is a link, not a copy."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from typing_extensions import override

from covey import messages as msg
from covey.artifact import Artifact, artifact_of_file
from covey.errors import CorruptChunk, NotFound, StoreError
from covey.node.assignments.record.local_state import LocalStates, RunStates
from covey.node.ports import Files, Store
from covey.node.updates import FinishedUpdate, State
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.spool import disk_errors


class CoordinatorFiles(ArtifactFiles):
    """The coordinator's files. Dropped ones are never written over: a node may hold another link to them.

    Nothing is synced: after a power cut the simulation is run again.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, durable=False)

    @override
    def adopt(self, path: Path, artifact: Artifact, *, durable: bool = True) -> Path:
        """Nothing waits for the disk."""
        final = self.path(artifact.digest)
        if final.exists():
            self.discard(path)
            return final
        _move(path, final, artifact)
        with self._lock:
            self._sizes.pop(path, None)
            self._sizes[final] = artifact.size_bytes
        return final

    @override
    def check(self, digest: str) -> bool:
        """A simulation uses no file of an earlier process."""
        return self.has(digest)

    def take(self, path: Path, artifact: Artifact) -> None:
        """Take over a node's file, which stays with the node too.

        Raises:
            NotFound: There is no such file.
            StoreError: It does not have the artifact's size.
        """
        if not self.has(artifact.digest):
            link = self.scratch(0)
            with disk_errors(link):
                os.link(path, link)
            self.adopt(link, artifact)

    def _recycle(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._delete(path)


class NodeFiles(Files):
    """One virtual node's files: its own, and the models, which it reads where the coordinator has them.

    Args:
        folder: Of all virtual nodes; it exists. A thousand folders would cost more than what is in them.
        node: The node's id.
        coordinator: The coordinator's files.
        own: Digests of those of its own that are there already.
    """

    def __init__(self, folder: Path, node: str, coordinator: CoordinatorFiles, own: Iterable[str] = ()) -> None:
        self._folder, self._node, self._coordinator = folder, node, coordinator
        self._own = set(own)

    def _own_path(self, digest: str) -> Path:
        return self._folder / f"{self._node}-{digest}"

    @override
    def path(self, digest: str) -> Path:
        return self._own_path(digest) if digest in self._own else self._coordinator.path(digest)

    @override
    def has(self, digest: str) -> bool:
        return digest in self._own or self._coordinator.has(digest)

    @override
    def free_bytes(self) -> int:
        """Nothing is brought: there is always room."""
        return 1 << 62

    @override
    def check(self, digest: str) -> bool:
        """A simulation uses no file of an earlier process."""
        return self.has(digest)

    @override
    def offset(self, artifact: Artifact) -> int:
        """All of a file is here, or nothing."""
        return artifact.size_bytes if self.has(artifact.digest) else 0

    @override
    def put(self, artifact: Artifact, data: bytes) -> Path:
        """Nothing waits for the disk."""
        path = self.scratch(len(data))
        with disk_errors(path):
            path.write_bytes(data)
        if artifact_of_file(path) != artifact:
            self.discard(path)
            raise CorruptChunk("a file that came along is not the announced one")
        return self.adopt(path, artifact)

    @override
    def scratch(self, size_bytes: int) -> Path:
        """A new file, always."""
        return self._folder / uuid.uuid4().hex

    @override
    def adopt(self, path: Path, artifact: Artifact, *, durable: bool = True) -> Path:
        """Nothing waits for the disk."""
        final = self._own_path(artifact.digest)
        if artifact.digest in self._own:
            self.discard(path)
            return final
        _move(path, final, artifact)
        self._own.add(artifact.digest)
        return final

    @override
    def discard(self, path: Path) -> None:
        with disk_errors(path):
            path.unlink(missing_ok=True)

    @override
    def release(self, digests: Iterable[str]) -> None:
        """Only the node's own files go."""
        for digest in digests:
            if digest in self._own:
                self.discard(self._own_path(digest))
                self._own.discard(digest)

    def hand_over(self, artifact: Artifact) -> None:
        """Give the coordinator one of the node's own files: an upload without bytes."""
        if artifact.digest in self._own:
            self._coordinator.take(self._own_path(artifact.digest), artifact)


def lasting_states(folder: Path, nodes: Sequence[str]) -> dict[str, LocalStates]:
    """What nodes of a run that goes on have kept, by node; of all else that a killed process left nothing is left.

    Blocking.

    Args:
        folder: Of all virtual nodes.
        nodes: Their ids.
    """
    states = {node: LocalStates(folder / f"{node}.kept", durable=False) for node in nodes}
    needed = {f"{node}-{digest}" for node, kept in states.items() for digest in kept.digests()}
    for path in folder.iterdir():
        if path.is_file() and path.name not in needed:
            path.unlink()
    return states


def _move(path: Path, final: Path, artifact: Artifact) -> None:
    if not path.exists():
        raise NotFound(f"the worker's file {path} is gone")
    if path.stat().st_size != artifact.size_bytes:
        raise StoreError(f"{path} has {path.stat().st_size} bytes, its artifact {artifact.size_bytes}")
    with disk_errors(path):
        path.rename(final)


class MemoryStore(Store):
    """A node's own record (`covey.node.ports.Store`) that lasts as long as this process.

    Args:
        states: What it keeps from update to update, where that lasts longer.
    """

    def __init__(self, states: LocalStates | None = None) -> None:
        self._newest: dict[str, FinishedUpdate] = {}
        self._states = states or RunStates()
        self.staying: Callable[[str], State] = lambda _: {}
        """What stays on this node of a run that it knows of otherwise."""
        self._private: Counter[str] = Counter()
        self._terms: dict[str, str] = {}

    @override
    def finished(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        update = self._newest.get(run)
        is_wanted = update is not None and (update.round, update.phase, update.base) == (number, phase, base)
        return update if is_wanted else None

    @override
    def holding(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        update = self._newest.get(run)
        is_same = update is not None and (update.round, update.base) == (number, base) and update.promises(phase)
        return update if is_same else None

    @override
    def save(self, update: FinishedUpdate, state: State, own: State) -> None:
        self._private[update.run] += update.private and update.phase == 1
        if state or own:
            self._states.stage(update, state, own)
        self._newest[update.run] = update

    @override
    def private_terms(self, run: str, given: str) -> str:
        return self._terms.setdefault(run, given)

    @override
    def private_updates(self, run: str) -> int:
        return self._private[run]

    @override
    def delivered(self, update: FinishedUpdate) -> None:
        """Only what is held back is needed any more: nobody restarts a virtual node."""
        self._newest.pop(update.run, None)
        if update.held:
            self._newest[update.run] = replace(update, delivered=True)

    @override
    def keep_receipt(self, run: str, statement: bytes, signature: bytes) -> None:
        """Nobody audits a simulation."""

    @override
    def drop_update(self, run: str) -> None:
        self._newest.pop(run, None)

    @override
    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        return self._states.settle(run, feedback, number)

    @override
    def lost_before(self, run: str) -> int:
        return self._states.lost_before(run)

    @override
    def own_state(self, run: str) -> State:
        return self._states.own_state(run) or self.staying(run)

    @override
    def forget(self, run: str) -> None:
        self._states.forget(run)
        if run in self._newest and not self._newest[run].private:
            self.drop_update(run)

    @override
    def needed(self) -> set[str]:
        waiting = [digest for update in list(self._newest.values()) for digest in update.needed]
        return self._states.digests().union(waiting)
