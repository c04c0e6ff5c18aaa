"""Taking a model away: a version's safetensors file, checked chunk by chunk, in place when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import click

from covey.artifact import Artifact, chunk_count
from covey.cli.framework.offline import BEST, Reader
from covey.errors import CorruptChunk, NotFound
from covey.protos import admin_pb2 as pb
from covey.wire.artifacts import artifact_from

NEWEST = -1
MAX_FILE_BYTES = 1 << 44


def version_number(text: str) -> int:
    """A version as the command line names it: a number, `newest` or `best`, as the wire names it.

    Raises:
        click.BadParameter: Something else.
    """
    named = {"newest": NEWEST, "best": BEST}
    if text in named:
        return named[text]
    if not re.fullmatch(r"\d{1,9}", text):
        raise click.BadParameter(f"{text!r} is not a version; choose a number, 'newest' or 'best'")
    return int(text)


def export_version(source: Reader, run: str, number: int, path: Path) -> pb.Version:
    """Write a version's file; `path` is replaced at once, when all of it is there and synced.

    Raises:
        NotFound: No such version, or its file is not kept any more, or the folder does not exist.
        CorruptChunk: What came is not what was announced.
    """
    found = source.version(run, number)
    if not found.kept:
        raise NotFound(f"version {found.version} is no longer kept; see [keep] in the run's specification")
    artifact = artifact_from(found.artifact)
    artifact.validate(MAX_FILE_BYTES)
    with _replacing(path) as file, _progress(artifact.size_bytes) as advance:
        for data in _checked(source.chunks(run, found), artifact):
            file.write(data)
            advance(len(data))
    return found


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


@contextlib.contextmanager
def _progress(size_bytes: int) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size_bytes)
        yield lambda count: progress.advance(task, count)
