"""The files of one daemon, named by what is in them: models, parts of updates, optimizer state.

    root/artifacts/<digest>     whole, verified and durable
    root/spool/<digest>.part    on its way in; survives a crash
    root/scratch/<name>         given to the worker to write into
    root/free/<size>-<n>        dropped files, to be written over (`covey.storage.files.recycled`)

One process works in a root. Methods may be called from any thread; all but `path`, `has` and `bytes_used` may
wait for the disk.
"""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from collections.abc import Hashable, Iterable
from pathlib import Path

import structlog

from covey.artifact import CHUNK_BYTES, Artifact, artifact_of_file, valid_prefix
from covey.errors import DiskFull, LimitExceeded, NotFound
from covey.storage.files.recycled import FreeFiles
from covey.storage.files.spool import Spool, check_size, disk_errors, obstruction, open_sized, sync_folder

MAX_IDLE_PARTS = 32
"""Broken transfers that may wait to be resumed; beyond, the longest idle one is dropped."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
log = structlog.get_logger(room="files")


class ArtifactFiles:
    """Content-addressed files under one folder.

    Args:
        root: The folder; made if it is missing.
        quota_bytes: At most so much disk for everything in it (None: no limit). Free files and broken
            transfers make room before anything is refused.
        durable: Whether received files must survive a power cut. Not where `clean` drops them at the next
            start anyway (a node's models); what is adopted is durable unless its caller says otherwise.
    """

    def __init__(self, root: Path, quota_bytes: int | None = None, *, durable: bool = True) -> None:
        self.root, self.quota_bytes, self._durable = root, quota_bytes, durable
        self._artifacts, self._spool, self._scratch = root / "artifacts", root / "spool", root / "scratch"
        self._lock, self._beginning = threading.Lock(), threading.Lock()
        self._live: dict[str, Spool] = {}
        self._intact: dict[str, tuple[int, int, int]] = {}
        """Of the files whose content is known to be theirs: what the disk said of them then."""
        with disk_errors(root):
            for folder in (self._artifacts, self._spool, self._scratch):
                folder.mkdir(parents=True, exist_ok=True)
            self._free = FreeFiles(root / "free")
            self._sizes = {path: path.stat().st_size for path in self._all_files()}
            self._idle: dict[str, int | None] = {path.stem: None for path in self._parts_by_age()}

    def _all_files(self) -> list[Path]:
        return [path for folder in (self._artifacts, self._spool, self._scratch) for path in folder.iterdir()]

    def _parts_by_age(self) -> list[Path]:
        return sorted(self._spool.glob("*.part"), key=lambda part: part.stat().st_mtime)

    # -- what is here

    def path(self, digest: str) -> Path:
        """Where the file with this digest is, or would be.

        Raises:
            NotFound: Not a digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise NotFound(f"{digest[:80]!r} is not a digest: 64 hexadecimal digits in lower case")
        return self._artifacts / digest

    def has(self, digest: str) -> bool:
        """Whether the whole file is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int | None:
        """How many bytes the whole file has; None: there is none."""
        with self._lock:
            return self._sizes.get(self.path(digest))

    def check(self, digest: str) -> bool:
        """Whether the file is here, and is what its name says; one that is not is dropped, for nobody may use it.

        A file that this process has written, received or checked is read again only if the disk says that it was
        changed since. Else it is read and hashed: once after a start, for a file that is used then.

        Raises:
            Obstructed: It cannot be looked at now, which says nothing about it.
        """
        path = self.path(digest)
        try:
            if self._intact.get(digest) == (now := _stamp(path)):
                return True
            if artifact_of_file(path).digest == digest:
                self._intact[digest] = now
                return True
        except FileNotFoundError:
            return False
        except OSError as error:  # a disk that cannot read it
            if (obstacle := obstruction(error)) is not None:
                raise obstacle from error
            log.error("a file cannot be read", file=str(path), error=str(error))
        log.error("a file is damaged and is not used: its content is not the one of its name", file=str(path))
        self._delete(path)
        return False

    def offset(self, artifact: Artifact) -> int:
        """How many bytes of a file are here: where its sender goes on.

        A part that is left from before this process started is read and hashed when it is first asked for.
        """
        if self.has(artifact.digest):
            return artifact.size_bytes
        live = self._live.get(artifact.digest)
        if live is not None:
            return live.offset
        known = self._idle.get(artifact.digest, 0)
        if known is None:
            known = valid_prefix(self._part(artifact.digest), artifact)
            with self._lock:
                if artifact.digest in self._idle:
                    self._idle[artifact.digest] = known
        return known

    def free_bytes(self) -> int:
        """How much more fits on the disk, or within the quota, with what is only kept to be used again."""
        with self._lock:
            broken = [size for path, size in self._sizes.items() if path.parent == self._spool]
            spare, used = self._free.bytes_used + sum(broken), self._free.bytes_used + sum(self._sizes.values())
        free = shutil.disk_usage(self.root).free
        return spare + (free if self.quota_bytes is None else max(0, min(free, self.quota_bytes - used)))

    @property
    def bytes_used(self) -> int:
        """The disk that all files take or have reserved."""
        with self._lock:
            return sum(self._sizes.values()) + self._free.bytes_used

    def _part(self, digest: str) -> Path:
        return self._spool / f"{self.path(digest).name}.part"

    # -- receiving

    def begin(self, artifact: Artifact) -> Spool:
        """Open the spool of a file that is to be received; its `offset` says how much is here already.

        Whoever was writing the same file is stopped: its next `write` fails. For a file that is here already
        the spool is finished from the start. The artifact must have been validated.

        Raises:
            LimitExceeded: The file is larger than the whole quota.
            StoreError: The disk, or the quota, is full (`DiskFull`), or refuses.
        """
        with self._beginning:
            digest, part, final = artifact.digest, self._part(artifact.digest), self.path(artifact.digest)
            live = self._live.get(digest)
            if live is not None:
                live.abandon("another transfer of the same file took over")
            offset = self.offset(artifact)
            if final.exists():
                return Spool(artifact, part, final, fd=-1, offset=offset, ended=self._ended)
            with self._lock:
                self._live.pop(digest, None)
                self._idle.pop(digest, None)
            fd = self._open_part(part, artifact.size_bytes)
            spool = self._live[digest] = Spool(
                artifact, part, final, fd=fd, offset=offset, ended=self._ended, durable=self._durable
            )
            return spool

    def unfinished(self) -> set[str]:
        """The digests of files of which a part is here, whether the rest is coming just now or not."""
        with self._lock:
            return {*self._idle, *self._live}

    def forget(self, digests: Iterable[str]) -> None:
        """Drop what came of files that nobody waits for any more; what is coming just now stays."""
        with self._beginning:
            with self._lock:
                idle = [digest for digest in digests if digest in self._idle]
            self._recycle(self._part(digest) for digest in idle)

    def put(self, artifact: Artifact, data: bytes) -> Path:
        """Receive a whole small file at once, durably. Blocking; as `begin`, `Spool.write` and `Spool.finish`."""
        spool = self.begin(artifact)
        if spool.finished:
            return spool.final
        try:
            spool.rewind(0)
            for start in range(0, len(data), CHUNK_BYTES):
                spool.write(memoryview(data)[start : start + CHUNK_BYTES])
            return spool.finish()
        except BaseException:
            spool.abandon()
            raise

    def _open_part(self, part: Path, size_bytes: int) -> int:
        with disk_errors(part):
            if not part.exists():
                self._free.take(size_bytes, part)
        try:
            self._reserve(part, size_bytes)
            try:
                return open_sized(part, size_bytes)
            except DiskFull:
                self._make_room(0)
                return open_sized(part, size_bytes)
        except BaseException:
            self._delete(part)
            raise

    def _ended(self, spool: Spool) -> None:
        digest, part = spool.artifact.digest, self._part(spool.artifact.digest)
        with self._lock:
            if self._live.get(digest) is not spool:
                return
            del self._live[digest]
            if spool.finished:
                self._sizes[spool.final] = self._sizes.pop(part)
                self._intact[digest] = _stamp(spool.final)
            elif spool.offset:
                self._idle[digest] = spool.offset
            surplus = [self._part(idle) for idle in list(self._idle)[: max(0, len(self._idle) - MAX_IDLE_PARTS)]]
        if not spool.finished and not spool.offset:
            surplus.append(part)
        self._recycle(surplus)

    # -- files of the worker

    def scratch(self, size_bytes: int) -> Path:
        """A name, unused until now, for a file that the worker writes; then `adopt` or `discard` it.

        There may be a file of this size under it, with anything in it: writing over one is cheaper.

        Args:
            size_bytes: What the file is expected to have; 0 if that is not known.

        Raises:
            LimitExceeded: The file is larger than the whole quota.
            StoreError: The quota is full (`DiskFull`), or the disk refuses.
        """
        path = self._scratch / uuid.uuid4().hex
        with disk_errors(path):
            self._free.take(size_bytes, path)
        try:
            self._reserve(path, size_bytes)
        except (DiskFull, LimitExceeded):
            self._delete(path)
            raise
        if shutil.disk_usage(self.root).free < size_bytes:
            self._make_room(0)
        return path

    def begin_scratch(self, path: Path, artifact: Artifact) -> Spool:
        """Open the spool of a file that is nobody's yet, under a name that `scratch` gave: there it ends, not synced.

        Raises:
            StoreError: The disk is full (`DiskFull`), or refuses.
        """
        fd = open_sized(path, artifact.size_bytes)
        return Spool(artifact, path, path, fd=fd, offset=0, ended=lambda spool: None, durable=False)

    def adopt(self, path: Path, artifact: Artifact, *, durable: bool = True) -> Path:
        """Make a file that the worker wrote an artifact: synced, renamed, folder synced. Repeatable.

        Args:
            path: The file.
            artifact: What it is.
            durable: Whether it must survive a power cut; else what is left of it then is found by `check`, and dropped.

        Raises:
            NotFound: There is no such file, and the artifact is not here either.
            StoreError: It does not have the artifact's size, or the disk refused.
        """
        final = self.path(artifact.digest)
        if final.exists():
            self.discard(path)
            return final
        if not path.exists():
            raise NotFound(f"the worker's file {path} is gone")
        with disk_errors(path):
            check_size(path, artifact, sync=durable)
            path.rename(final)
            if durable:
                sync_folder(self._artifacts)
        with self._lock:
            self._sizes.pop(path, None)
            self._sizes[final] = artifact.size_bytes
        self._intact[artifact.digest] = _stamp(final)
        return final

    def secure(self, artifact: Artifact, path: Path | None = None) -> None:
        """Have a file where files last, before it is recorded: they last here, so there is nothing to do.

        Args:
            artifact: What it is.
            path: Where it is, if it is not adopted yet.

        Raises:
            Obstructed: Where files last cannot be reached now.
        """

    def hold(self, owner: Hashable, digests: Iterable[str]) -> None:
        """Say which files somebody reads by their paths, from now until it says so again: here all stay till released.

        Args:
            owner: Who; what it said before does not count any more.
            digests: Of the files; none: it reads none now.
        """

    def discard(self, path: Path) -> None:
        """Drop a scratch file that will not be adopted, and that nobody writes any more. Repeatable."""
        self._recycle([path])

    # -- dropping

    def release(self, digests: Iterable[str]) -> None:
        """Drop files; what is not here is passed over.

        Their blocks will be written over: nobody may still read them (a download in progress gets wrong
        chunks, which its receiver refuses).
        """
        self._recycle([self.path(digest) for digest in digests])

    def clean(self, referenced: set[str]) -> None:
        """After a start: drop files that nothing refers to, and what a worker left. Broken transfers stay."""
        self._recycle(path for path in self._artifacts.iterdir() if path.name not in referenced)
        for path in self._scratch.iterdir():
            # Not recycled: a worker that outlived its daemon may still be writing into it.
            self._delete(path)

    def _recycle(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with self._lock:
                self._sizes.pop(path, None)
                self._intact.pop(path.name, None)
                if path.parent == self._spool:  # what came of a file stays when the whole one of its name goes
                    self._idle.pop(path.stem, None)
            with disk_errors(path):
                if path.exists():
                    self._free.put(path, path.stat().st_size)

    def _delete(self, path: Path) -> None:
        with self._lock:
            self._sizes.pop(path, None)
            self._intact.pop(path.name, None)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    # -- room

    def _reserve(self, path: Path, size_bytes: int) -> None:
        """Count a file before its disk is taken."""
        with self._lock:
            before = self._sizes.get(path, 0)
            self._sizes[path] = max(size_bytes, before)
        if self.quota_bytes is None or self.bytes_used <= self.quota_bytes:
            return
        self._make_room(self.quota_bytes)
        if self.bytes_used > self.quota_bytes:
            with self._lock:
                self._sizes[path] = before
            if size_bytes > self.quota_bytes:
                raise LimitExceeded(f"{size_bytes} bytes are more than the quota of {self.quota_bytes} for {self.root}")
            raise DiskFull(
                f"{size_bytes} bytes more would exceed the quota of {self.quota_bytes} bytes for {self.root}: delete "
                "runs that nobody needs, or raise the quota"
            )

    def _make_room(self, max_bytes: int) -> None:
        """Give up what is only convenient until so little is used: free files, copies, then broken transfers."""
        with self._lock:
            kept = sum(self._sizes.values())
        self._free.shrink(max(0, max_bytes - kept))
        self._drop_copies(max_bytes)
        while self.bytes_used > max_bytes and self._idle:
            self._delete_longest_idle()

    def _drop_copies(self, max_bytes: int) -> None:
        """Delete files that are elsewhere, too, until so little is used: here there are none."""

    def _delete_longest_idle(self) -> None:
        with self._lock:
            digest = next(iter(self._idle), None)
            if digest is not None:
                del self._idle[digest]
        if digest is not None:
            self._delete(self._part(digest))


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when somebody writes into a file, or puts another one in its place."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
