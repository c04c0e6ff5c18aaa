"""Files that last at an address (`covey.storage.files.address`), with those that are in use here: a cache of them.

What is recorded of a version is there before it is recorded. Updates are here only: their nodes send them again.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

import structlog
from typing_extensions import override

from covey.artifact import Artifact, artifact_of_file
from covey.errors import CoveyError, NotFound
from covey.storage.files.address import Address
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.files.spool import Spool

log = structlog.get_logger(room="files")


class DistantFiles(ArtifactFiles):
    """As `ArtifactFiles`; what is here and at the address goes from here, longest unused first, to make room.

    Nobody but `tidy` deletes at the address, so that who lets a file go waits for nothing.

    Args:
        root: The folder.
        address: Where they last; it is listed now.
        quota_bytes: At most so much disk here.

    Raises:
        Obstructed: The address cannot be reached.
    """

    def __init__(self, root: Path, address: Address, quota_bytes: int | None = None) -> None:
        super().__init__(root, quota_bytes)
        self._address = address
        self._table = threading.Lock()
        """Of what follows; held for no transfer."""
        self._there = address.sizes()
        self._unwanted: set[str] = set()
        """Files there that nobody needs."""
        self._used = dict.fromkeys(sorted(self._there.keys() & {path.name for path in self._artifacts.iterdir()}))
        """What was used here, the longest unused first."""
        self._held: dict[Hashable, frozenset[str]] = {}
        self._sending, self._fetching, self._deleting = threading.Lock(), threading.Lock(), threading.Lock()

    # -- what is here, and there

    @override
    def has(self, digest: str) -> bool:
        return super().has(digest) or digest in self._there

    @override
    def size(self, digest: str) -> int | None:
        local = super().size(digest)
        return self._there.get(digest) if local is None else local

    @override
    def check(self, digest: str) -> bool:
        """Whether the file is here, or was there and now is, whole."""
        if super().check(digest):
            self._note_use(digest)
            return True
        with self._fetching:
            return super().check(digest) or (digest in self._there and self._fetch(digest))

    def _fetch(self, digest: str) -> bool:
        for last in (False, True):  # a connection that breaks may end a file early
            path = self.scratch(self._there.get(digest, 0))
            try:
                is_there = self._address.get(digest, path)
                artifact = artifact_of_file(path) if is_there else None
                if artifact is not None and artifact.digest == digest:
                    super().adopt(path, artifact, durable=False)
                    return self._still_wants(digest)
            finally:
                self.discard(path)
            if last or not is_there:
                what = "is not its content" if is_there else "is gone"
                log.error(f"a file {what} at the address", file=digest, address=self._address.url)
                with self._table:  # so that it is written anew when somebody has it
                    self._there.pop(digest, None)
                return False
        raise AssertionError("unreachable")

    def _still_wants(self, digest: str) -> bool:
        """Whether a file that came was not let go meanwhile; else it goes again: nobody would let it go once more."""
        with self._table:
            if digest in self._there:
                self._used.pop(digest, None)
                self._used[digest] = None
                return True
        self._delete(self.path(digest))
        return False

    @override
    def begin(self, artifact: Artifact) -> Spool:
        self.check(artifact.digest)  # what is there need not be sent
        return super().begin(artifact)

    def _note_use(self, digest: str) -> None:
        with self._table:
            self._used.pop(digest, None)
            self._used[digest] = None

    # -- making it last

    @override
    def secure(self, artifact: Artifact, path: Path | None = None) -> None:
        with self._table:
            self._unwanted.discard(artifact.digest)
            if artifact.digest in self._there:
                return
        copy = self.path(artifact.digest)
        source = copy if copy.exists() or path is None else path
        if not source.exists():
            raise NotFound(f"the file {source} is gone")
        with self._sending:
            with self._deleting:  # one that is just being deleted is gone before it comes again
                pass
            if artifact.digest not in self._there:
                self._address.put(source, artifact.digest)
            with self._table:
                self._there[artifact.digest] = artifact.size_bytes
        self._note_use(artifact.digest)

    @override
    def adopt(self, path: Path, artifact: Artifact, *, durable: bool = True) -> Path:
        self.secure(artifact, path)  # most often done before, where nobody waits for it
        final = super().adopt(path, artifact, durable=durable)
        self._note_use(artifact.digest)
        return final

    # -- dropping

    @override
    def release(self, digests: Iterable[str]) -> None:
        gone = set(digests)
        with self._table:
            for digest in gone & self._there.keys():
                del self._there[digest]
                self._unwanted.add(digest)
            for digest in gone:
                self._used.pop(digest, None)
        super().release(gone)

    @override
    def clean(self, referenced: set[str]) -> None:
        super().clean(referenced)
        with self._table:
            self._unwanted |= self._there.keys() - referenced
            self._there = {digest: size for digest, size in self._there.items() if digest in referenced}
        self._address.drop_parts()

    def send(self, digests: Iterable[str]) -> int:
        """Write there what is only here, and whole; how many files. For what was made before there was an address."""
        count = 0
        for digest in sorted(set(digests) - self._there.keys()):
            if super().check(digest):
                self.secure(artifact_of_file(self.path(digest)))
                count += 1
        return count

    def tidy(self) -> None:
        """Delete at the address what was let go. What cannot be deleted now is left for the next time, or start."""
        while True:
            with self._deleting:
                with self._table:
                    digest = next(iter(self._unwanted), None)
                    if digest is None:
                        return
                    self._unwanted.discard(digest)
                try:
                    self._address.drop(digest)
                except CoveyError as error:
                    log.warning("files that nobody needs stay at the address for now", error=str(error))
                    with self._table:
                        self._unwanted.add(digest)
                    return

    # -- room

    @override
    def hold(self, owner: Hashable, digests: Iterable[str]) -> None:
        held = frozenset(digests)
        with self._table:
            if held:
                self._held[owner] = held
            else:
                self._held.pop(owner, None)

    @override
    def free_bytes(self) -> int:
        with self._lock:
            sizes = {path.name: size for path, size in self._sizes.items()}
        with self._table:
            return super().free_bytes() + sum(sizes.get(digest, 0) for digest in self._spare())

    def _spare(self) -> Iterator[str]:
        """What is here and there, and read by nobody; the longest unused first. While `_table` is held."""
        held = frozenset[str]().union(*self._held.values())
        return (digest for digest in self._used if digest in self._there and digest not in held)

    @override
    def _drop_copies(self, max_bytes: int) -> None:
        while self.bytes_used > max_bytes:
            with self._table:  # what is held or used from now on is not the one that goes
                digest = next(self._spare(), None)
                if digest is None:
                    return
                del self._used[digest]
                self._delete(self.path(digest))  # not recycled: who has it open reads on
