"""A file that is not what its name says is dropped before anybody uses it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from covey.artifact import CHUNK_BYTES, Artifact, artifact_of, artifact_of_file
from covey.storage.files import artifacts
from covey.storage.files.artifacts import ArtifactFiles

CONTENT = os.urandom(CHUNK_BYTES + 100)
ARTIFACT = artifact_of([CONTENT[:CHUNK_BYTES], CONTENT[CHUNK_BYTES:]])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = ArtifactFiles(tmp_path / "files")
    files.put(ARTIFACT, CONTENT)
    return tmp_path / "files"


def test_a_file_from_before_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, reads = ArtifactFiles(root), list[Path]()

    def read(path: Path) -> Artifact:
        reads.append(path)
        return artifact_of_file(path)

    monkeypatch.setattr(artifacts, "artifact_of_file", read)
    assert [files.check(ARTIFACT.digest) for _ in range(3)] == [True] * 3
    assert len(reads) == 1
    assert not files.check("0" * 64)


def test_what_this_process_wrote_or_received_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ArtifactFiles(root)
    files.release([ARTIFACT.digest])
    files.put(ARTIFACT, CONTENT)
    own = files.scratch(0)
    own.write_bytes(b"model")
    made = artifact_of([b"model"])
    files.adopt(own, made)
    monkeypatch.setattr(artifacts, "artifact_of_file", None)
    assert files.check(ARTIFACT.digest)
    assert files.check(made.digest)


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("damage", ["bit", "short", "other"])
def test_a_damaged_file_is_dropped_and_can_come_again(tmp_path: Path, damage: str, restarted: bool) -> None:
    files = ArtifactFiles(tmp_path / "files")
    path = files.put(ARTIFACT, CONTENT)
    assert files.check(ARTIFACT.digest)
    data = bytearray(CONTENT)
    data[CHUNK_BYTES // 2] ^= 1
    os.utime(path, ns=(1, 1))
    path.write_bytes({"bit": bytes(data), "short": CONTENT[:-1], "other": b"text"}[damage])
    files = ArtifactFiles(tmp_path / "files") if restarted else files
    assert not files.check(ARTIFACT.digest)
    assert not files.has(ARTIFACT.digest)
    assert files.offset(ARTIFACT) == 0
    files.put(ARTIFACT, CONTENT)
    assert files.check(ARTIFACT.digest)
