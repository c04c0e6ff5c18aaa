"""Taking a model away: a version's safetensors file, checked chunk by chunk, in place when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from covey.artifact import Artifact, chunk_count
from covey.client.further_names import write_with_all_names
from covey.client.values import Version
from covey.errors import CorruptChunk, NotFound
from covey.layout import Layout

MAX_FILE_BYTES = 1 << 44
OnBytes = Callable[[int, int], object]
"""Told how many bytes are there, of how many."""


def models_elsewhere(run: str) -> str:
    """Why nothing can be exported of a run in which no model comes to the coordinator, and what can be done."""
    return (
        f"no model of run {run} is here: nodes exchanged them. Its consensus model is made of their data directories: "
        f"covey gossip export DATA_DIR... --run {run} --out FILE"
    )


def require_model(version: Version, node: str) -> None:
    """Raises NotFound where a version has no model, or has one of each node and none is named."""
    if version.members and not node:
        nodes = ", ".join(version.members)
        raise NotFound(f"the run has no global model; name the node whose own you want (--node, one of {nodes})")
    if version.bytes == Layout(()).file_bytes:
        raise NotFound("the models of this run never leave their nodes, so there is none to export here")


def write_version(version: Version, chunks: Iterator[bytes], path: Path, on_progress: OnBytes | None = None) -> None:
    """Write a version's file, tied weights under all of their names; `path` is replaced at once, when all is there.

    Args:
        version: As it was announced.
        chunks: Its file; each chunk is checked.
        path: The file to write.
        on_progress: Called after each chunk.

    Raises:
        NotFound: Its file is not kept any more (the record says so, and which are), or the folder does not exist.
        CorruptChunk: What came is not what was announced.
    """
    version.artifact.validate(MAX_FILE_BYTES)
    with _replacing(path) as file:
        write_with_all_names(_reported(_checked(chunks, version.artifact), version.bytes, on_progress), file)


def _reported(chunks: Iterator[bytes], size: int, on_progress: OnBytes | None) -> Iterator[bytes]:
    done = 0
    for data in chunks:
        yield data
        done += len(data)
        if on_progress is not None:
            on_progress(done, size)


def _checked(chunks: Iterator[bytes], artifact: Artifact) -> Iterator[bytes]:
    """Pass on chunks that are the announced ones, all of them and no more."""
    count = 0
    for data in chunks:
        if count >= chunk_count(artifact.size_bytes):
            raise CorruptChunk("more was sent than was announced")
        if hashlib.sha256(data).digest() != artifact.chunk_digest(count):
            raise CorruptChunk(f"chunk {count} is not the announced one; try again")
        count += 1
        yield data
    if count != chunk_count(artifact.size_bytes):
        raise CorruptChunk(f"{count} chunks came, {chunk_count(artifact.size_bytes)} were announced; try again")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise NotFound(f"cannot write into {path.parent}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a model is an ordinary one.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
