"""A file goes with its last holder: not before, and not later than the disk lets it."""

from pathlib import Path

import pytest

from covey.artifact import artifact_of
from covey.errors import Obstructed, StoreError
from covey.node.models.holders import Holders
from covey.storage.files.artifacts import ArtifactFiles

DATA = b"model"
BODY = artifact_of([DATA])


def test_a_file_goes_with_its_last_holder(tmp_path: Path) -> None:
    holders = Holders(files := ArtifactFiles(tmp_path))
    holders.hold(BODY.digest)
    assert holders.has(BODY.digest)  # before it is here
    files.put(BODY, DATA)
    with holders.holding(BODY.digest):
        holders.release(BODY.digest)
        assert files.has(BODY.digest)
    assert not holders.has(BODY.digest)
    assert not files.has(BODY.digest)


def test_what_cannot_be_dropped_is_dropped_later_unless_somebody_holds_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders, told, release = Holders(files := ArtifactFiles(tmp_path)), list[StoreError | None](), ArtifactFiles.release
    holders.told = told.append
    bodies = [artifact_of([data]) for data in (b"one", b"two", b"three")]
    for body, data in zip(bodies, (b"one", b"two", b"three"), strict=True):
        files.put(body, data)
        holders.hold(body.digest)

    def refuse(files: ArtifactFiles, digests: list[str]) -> None:
        raise Obstructed("the disk is mounted read-only")

    monkeypatch.setattr(ArtifactFiles, "release", refuse)
    holders.release(bodies[0].digest)
    holders.release(bodies[1].digest)
    assert all(isinstance(error, Obstructed) for error in told)
    monkeypatch.setattr(ArtifactFiles, "release", release)
    holders.hold(bodies[1].digest)
    holders.release(bodies[2].digest)
    assert [files.has(body.digest) for body in bodies] == [False, True, False]
    assert told[-1] is None
