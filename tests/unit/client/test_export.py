import os

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.client.export import _checked, _replacing, write_version
from covey.client.values import Version
from covey.errors import CorruptChunk, NotFound

CHUNKS = [b"a" * CHUNK_BYTES, b"b" * 10]
ARTIFACT = artifact_of(CHUNKS)


def test_a_version_is_written_and_its_progress_told(tmp_path):
    told = []
    write_version(Version(3, "ab" * 32, ARTIFACT), iter(CHUNKS), tmp_path / "m", lambda *seen: told.append(seen))
    assert (tmp_path / "m").read_bytes() == b"".join(CHUNKS)
    assert told == [(CHUNK_BYTES, ARTIFACT.size_bytes), (ARTIFACT.size_bytes, ARTIFACT.size_bytes)]


def test_all_announced_chunks_pass():
    assert list(_checked(iter(CHUNKS), ARTIFACT)) == CHUNKS


@pytest.mark.parametrize(
    "sent", [CHUNKS[:1], [*CHUNKS, b"c"], [CHUNKS[0], b"b" * 11], [CHUNKS[1], CHUNKS[0]], []], ids=range(5)
)
def test_anything_else_is_refused(sent):
    with pytest.raises(CorruptChunk):
        list(_checked(iter(sent), ARTIFACT))


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(CorruptChunk), _replacing(path) as file:
        file.writelines(_checked(iter(CHUNKS[:1]), ARTIFACT))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.safetensors"]
    with _replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(NotFound, match="cannot write into"), _replacing(tmp_path / "no" / "m.safetensors"):
        pass
