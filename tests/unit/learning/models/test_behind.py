"""Vectors behind a model in its file: read back, the model as it was, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from covey.artifact import artifact_of_file
from covey.errors import LayoutError
from covey.learning.models.state import ModelFile, ModelWriter, layout_of, load_into, map_behind, model_sha256

MODEL = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
LAYOUT = layout_of(MODEL)
D = LAYOUT.part("model").numel
VECTORS = [torch.arange(D, dtype=torch.float32), -torch.ones(D)]


def written(path: Path, stamp: int = 3) -> ModelFile:
    with ModelWriter(path, LAYOUT, behind=len(VECTORS)) as writer:
        writer.write(bytes(LAYOUT.nbytes))
        writer.write_stamp(stamp)
        for vector in VECTORS:
            writer.write_behind(vector[:7])
            writer.write_behind(vector[7:])
        return writer.close()


def test_they_are_read_back_and_the_model_is_the_same_without_them(tmp_path: Path) -> None:
    file = written(tmp_path / "model")
    assert file.artifact == artifact_of_file(tmp_path / "model")
    assert file.artifact.size_bytes == LAYOUT.file_bytes + LAYOUT.behind_bytes(2)
    behind = map_behind(tmp_path / "model", LAYOUT)
    assert behind.stamp == 3
    assert [vector.tolist() for vector in behind.vectors] == [vector.tolist() for vector in VECTORS]
    with ModelWriter(tmp_path / "plain", LAYOUT) as writer:
        writer.write(bytes(LAYOUT.nbytes))
        plain = writer.close()
    assert plain.model_sha256 == file.model_sha256 == model_sha256(tmp_path / "model", LAYOUT)
    assert map_behind(tmp_path / "plain", LAYOUT).vectors == ()
    load_into(MODEL, tmp_path / "model", LAYOUT)
    assert not any(parameter.any() for parameter in MODEL.parameters())


@pytest.mark.parametrize("more", [-1, 1, 4])
def test_a_file_of_another_size_is_refused(tmp_path: Path, more: int) -> None:
    written(tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(content[:more] if more < 0 else content + bytes(more))
    with pytest.raises(LayoutError, match="a model file of its layout has"):
        map_behind(tmp_path / "model", LAYOUT)


def test_a_stamp_that_cannot_be_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "model", stamp=(1 << 64) - 1)
    with pytest.raises(LayoutError, match="has the stamp"):
        map_behind(tmp_path / "model", LAYOUT)


def test_what_does_not_follow_a_whole_model_or_is_too_much_is_not_written(tmp_path: Path) -> None:
    with ModelWriter(tmp_path / "model", LAYOUT, behind=1) as writer:
        with pytest.raises(LayoutError, match="not whole"):
            writer.write_stamp(0)
        writer.write(bytes(LAYOUT.nbytes))
        with pytest.raises(LayoutError, match="do not fit"):
            writer.write_behind(VECTORS[0])
        writer.write_stamp(0)
        writer.write_behind(VECTORS[0])
        with pytest.raises(LayoutError, match="do not fit"):
            writer.write_behind(VECTORS[0][:1])
        assert map_behind(tmp_path / "model", LAYOUT).stamp == 0
