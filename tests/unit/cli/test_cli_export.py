import os

import click
import pytest
from covey.cli.views.export import BEST, NEWEST, _checked, _replacing, version_number

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.errors import CorruptChunk, NotFound

CHUNKS = [b"a" * CHUNK_BYTES, b"b" * 10]
ARTIFACT = artifact_of(CHUNKS)


def test_versions_by_name_and_number():
    assert [version_number(text) for text in ("newest", "best", "0", "12")] == [NEWEST, BEST, 0, 12]
    with pytest.raises(click.BadParameter, match="'newest' or 'best'"):
        version_number("-3")


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
