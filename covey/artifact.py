"""An artifact is a file named by what is in it: the unit of every bulk transfer.

Its digest is the SHA-256 over the SHA-256 digests of its 1 MiB chunks, so that a receiver that knows the list of chunk
digests checks each chunk as it comes, and resumes a broken transfer at the first chunk that it does not have.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from covey.errors import CorruptChunk, LimitExceeded

CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 32
INLINE_BYTES = 1 << 16
"""Files of at most this size travel inside the control message that announces them, without a stream of their own."""


WRITE_BACK_BYTES = 16 << 20
"""So much is written before it is on its way to the disk."""


def begin_write_back(fd: int, start: int, end: int) -> None:
    """Let the kernel bring these bytes of a file to the disk meanwhile, so that syncing it finds little to wait for."""
    # Of pages that are not written yet this is what the advice comes to; they stay in memory.
    os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)


def chunk_count(size_bytes: int) -> int:
    """How many chunks a file of this size has (an empty file has none)."""
    return -(-size_bytes // CHUNK_BYTES)


@dataclass(frozen=True)
class Artifact:
    """The name and the table of contents of a file.

    Attributes:
        digest: Hex SHA-256 over `chunk_sha256`.
        size_bytes: Size of the whole file.
        chunk_sha256: The chunks' SHA-256 digests, 32 bytes each, in order.
    """

    digest: str
    size_bytes: int
    chunk_sha256: bytes

    @property
    def is_without_table(self) -> bool:
        """Whether it was announced without its table of contents, which is to be asked for."""
        return bool(self.size_bytes) and not self.chunk_sha256

    def validate(self, max_bytes: int) -> None:
        """Check an announced artifact before anything is allocated for it.

        Raises:
            LimitExceeded: It is larger than `max_bytes`, or its size is negative.
            CorruptChunk: Table, size and digest do not belong together.
        """
        if not 0 <= self.size_bytes <= max_bytes:
            raise LimitExceeded(f"announced {self.size_bytes} bytes, at most {max_bytes} are accepted here")
        if len(self.chunk_sha256) != DIGEST_BYTES * chunk_count(self.size_bytes):
            raise CorruptChunk("the list of chunk digests does not fit the announced size")
        if hashlib.sha256(self.chunk_sha256).hexdigest() != self.digest:
            raise CorruptChunk("the artifact's digest is not that of its list of chunk digests")

    def chunk_digest(self, index: int) -> bytes:
        """The announced SHA-256 of chunk `index`."""
        return self.chunk_sha256[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def chunk_size(self, index: int) -> int:
        """The size in bytes of chunk `index`."""
        return min(CHUNK_BYTES, self.size_bytes - index * CHUNK_BYTES)


def artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    """An artifact as `{"digest", "size_bytes", "chunk_sha256"}`, the table of chunk digests in base64."""
    table = base64.b64encode(artifact.chunk_sha256).decode("ascii")
    return {"digest": artifact.digest, "size_bytes": artifact.size_bytes, "chunk_sha256": table}


def artifact_from_json(value: Artifact | Mapping[str, Any]) -> Artifact:
    """The inverse of `artifact_to_json`, whatever other keys there are; an artifact is passed through.

    Raises:
        ValueError: Not the JSON form of an artifact.
    """
    if isinstance(value, Artifact):
        return value
    try:
        table = base64.b64decode(value["chunk_sha256"], validate=True)
        return Artifact(str(value["digest"]), int(value["size_bytes"]), table)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an artifact: {error!r}") from error


def artifact_of(chunks: Iterable[bytes | memoryview]) -> Artifact:
    """The artifact of a byte sequence given as its chunks: 1 MiB each, the last one shorter."""
    table = bytearray()
    size = 0
    for chunk in chunks:
        table += hashlib.sha256(chunk).digest()
        size += len(chunk)
    return Artifact(hashlib.sha256(table).hexdigest(), size, bytes(table))


def read_chunks(file: IO[bytes], limit_bytes: int | None = None) -> Iterable[memoryview]:
    """Read a binary file chunk by chunk through one reused buffer; a view is valid until the next one is taken."""
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    left = limit_bytes if limit_bytes is not None else -1
    while left:
        want = CHUNK_BYTES if left < 0 else min(CHUNK_BYTES, left)
        got = file.readinto(view[:want])  # type: ignore[attr-defined]
        if not got:
            return
        if left > 0:
            left -= got
        yield view[:got]


def artifact_of_file(path: Path) -> Artifact:
    """The artifact of a file on disk, read once."""
    with path.open("rb", buffering=0) as file:
        return artifact_of(read_chunks(file))


def valid_prefix(path: Path, artifact: Artifact) -> int:
    """How many bytes at the start of `path` are whole chunks (or the end) of `artifact`; 0 if the file is missing.

    Needs no record of what was written: a file left by a crash, or one recycled from another transfer, is simply
    measured against the table of chunk digests.
    """
    done = 0
    try:
        with path.open("rb", buffering=0) as file:
            for index, chunk in enumerate(read_chunks(file, artifact.size_bytes)):
                if len(chunk) != artifact.chunk_size(index):
                    break
                if hashlib.sha256(chunk).digest() != artifact.chunk_digest(index):
                    break
                done += len(chunk)
    except FileNotFoundError:
        return 0
    return done
