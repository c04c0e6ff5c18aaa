"""What a node keeps of its runs is used only while it is what it was; nobody else has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from covey.artifact import artifact_of
from covey.errors import StoreError
from covey.node.assignments.kept import kept_file
from covey.storage.files.artifacts import ArtifactFiles

CONTENT = b"a node's residual"
RESIDUAL = artifact_of([CONTENT])


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    """Has the file already, and is asked for it by another process."""
    ArtifactFiles(tmp_path).put(RESIDUAL, CONTENT)
    return ArtifactFiles(tmp_path)


def test_a_file_that_is_whole_is_used(files: ArtifactFiles) -> None:
    path = kept_file(files, "run", "residual", RESIDUAL)
    assert path == files.path(RESIDUAL.digest)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("damaged", [None, b"", CONTENT[:-1], CONTENT[:-1] + b"L", CONTENT + b"."])
def test_one_that_is_not_stops_the_work_and_says_what_to_do(files: ArtifactFiles, damaged: bytes | None) -> None:
    path = files.path(RESIDUAL.digest)
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.raises(StoreError) as caught:
        kept_file(files, "run", "residual", RESIDUAL)
    text = str(caught.value)
    assert text.startswith(f"what this node keeps of run run (residual) is damaged or missing: {path}; restore ")
    assert "move its state/carried.json away to begin anew" in text
    assert "the account of privacy beside that has to stay" in text


def test_a_file_that_changes_after_it_was_used_is_not_used_again(files: ArtifactFiles) -> None:
    path = kept_file(files, "run", "residual", RESIDUAL)
    path.unlink()
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(StoreError):
        kept_file(files, "run", "residual", RESIDUAL)
    files.put(RESIDUAL, CONTENT)  # restored
    assert kept_file(files, "run", "residual", RESIDUAL) == path
