import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from covey.artifact import CHUNK_BYTES, artifact_of_file
from covey.errors import LayoutError
from covey.layout import Layout, TensorSpec
from covey.learning.models.state import (
    ModelWriter,
    layout_of,
    load_into,
    map_file,
    model_sha256,
    tensors_of,
    views,
    write_model,
)


class Mixed(nn.Module):
    """BatchNorm, a tied weight, several dtypes, a transient buffer, a frozen and an integer parameter."""

    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.narrow = nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
        self.wide = nn.Parameter(torch.randn(2, 2, dtype=torch.float64), requires_grad=False)
        self.codes = nn.Parameter(torch.arange(5), requires_grad=False)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("cache", torch.randn(9), persistent=False)
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.scalar = nn.Parameter(torch.tensor(2.5))


def filled(seed: int) -> Mixed:
    torch.manual_seed(seed)
    model = Mixed()
    model.norm.running_mean = torch.randn(4)
    model.norm(torch.randn(6, 4))
    return model


def test_layout_has_every_state_once() -> None:
    layout = layout_of(filled(1))
    found = {t.name: (t.dtype, t.shape, t.part) for t in layout.tensors}
    assert found == {
        "wide": ("float64", (2, 2), "model"),
        "embedding.weight": ("float32", (7, 4), "model"),
        "norm.weight": ("float32", (4,), "model"),
        "norm.bias": ("float32", (4,), "model"),
        "output.bias": ("float32", (7,), "model"),
        "empty": ("float32", (0, 3), "model"),
        "scalar": ("float32", (), "model"),
        "narrow": ("bfloat16", (3,), "model"),
        "norm.num_batches_tracked": ("int64", (), "buffers"),
        "codes": ("int64", (5,), "buffers"),
        "norm.running_mean": ("float32", (4,), "buffers"),
        "norm.running_var": ("float32", (4,), "buffers"),
        "mask": ("bool", (3,), "buffers"),
    }
    assert next(t.name for t in layout.tensors) == "wide"


def test_round_trip_restores_everything(tmp_path: Path) -> None:
    source, target = filled(1), filled(2)
    cache = target.cache.clone()
    layout = layout_of(source)
    write_model(tmp_path / "m", layout, source)
    load_into(target, tmp_path / "m")
    restored = tensors_of(target)
    assert all(torch.equal(restored[name], values) for name, values in tensors_of(source).items())
    assert target.output.weight is target.embedding.weight
    assert torch.equal(target.cache, cache)
    assert target.norm.num_batches_tracked is not None
    assert int(target.norm.num_batches_tracked) == 1


def test_the_file_is_what_it_says(tmp_path: Path) -> None:
    model = filled(3)
    layout = layout_of(model)
    written = write_model(tmp_path / "m", layout, model)
    assert written.artifact == artifact_of_file(tmp_path / "m")
    flat = (tmp_path / "m").read_bytes()[len(layout.header) :]
    assert written.model_sha256 == hashlib.sha256(layout.canonical_bytes() + flat).hexdigest()
    assert model_sha256(tmp_path / "m", layout) == written.model_sha256
    assert (tmp_path / "m").stat().st_size == layout.file_bytes


def test_plain_safetensors_reads_it(tmp_path: Path) -> None:
    model, other = filled(4), filled(5)
    write_model(tmp_path / "m", layout_of(model), model)
    loaded = load_file(tmp_path / "m")
    assert all(torch.equal(loaded[name], values) for name, values in tensors_of(model).items())
    load_model(other, tmp_path / "m")
    assert torch.equal(other.output.weight, model.output.weight)


def test_a_recycled_file_of_any_size_is_overwritten(tmp_path: Path) -> None:
    model = filled(6)
    layout = layout_of(model)
    fresh = write_model(tmp_path / "fresh", layout, model)
    for size in (0, 10, layout.file_bytes, layout.file_bytes + 999):
        path = tmp_path / str(size)
        path.write_bytes(b"\xff" * size)
        inode = path.stat().st_ino
        assert write_model(path, layout, model) == fresh
        assert path.read_bytes() == (tmp_path / "fresh").read_bytes()
        assert path.stat().st_ino == inode


@pytest.mark.parametrize("piece", [1000, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_streamed_pieces_give_the_same_file(tmp_path: Path, piece: int) -> None:
    values = torch.randn((5 * CHUNK_BYTES + 12) // 4)
    layout = Layout.of([TensorSpec("v", "float32", tuple(values.shape))])
    whole = write_model(tmp_path / "whole", layout, {"v": values})
    raw = values.numpy().tobytes()
    with ModelWriter(tmp_path / "streamed", layout) as writer:
        for start in range(0, len(raw), piece):
            writer.write(memoryview(raw)[start : start + piece])
        assert writer.close() == whole
    assert whole.artifact == artifact_of_file(tmp_path / "streamed")


def test_too_much_and_too_little_are_refused(tmp_path: Path) -> None:
    layout = Layout.of([TensorSpec("v", "float32", (3,))])
    with ModelWriter(tmp_path / "m", layout) as writer:
        writer.write(b"\0" * 8)
        with pytest.raises(LayoutError, match="were written"):
            writer.close()
        with pytest.raises(LayoutError, match="more than the layout's 12 bytes"):
            writer.write(b"\0" * 5)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    write_model(tmp_path / "m", layout_of(model), model)
    with pytest.raises(LayoutError, match="header differs"):
        load_into(nn.Linear(4, 3), tmp_path / "m")
    with (tmp_path / "m").open("ab") as file:
        file.write(b"!")
    with pytest.raises(LayoutError, match="bytes; a model file of its layout has"):
        load_into(nn.Linear(3, 4), tmp_path / "m")


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({}, "'v' of the layout is missing"),
        ({"v": torch.zeros(4)}, r"float32 \(4,\); the layout says float32 \(3,\)"),
        ({"v": torch.zeros(3, dtype=torch.int64)}, "int64"),
    ],
)
def test_wrong_tensors_are_not_written(tmp_path: Path, tensors: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(LayoutError, match=text):
        write_model(tmp_path / "m", Layout.of([TensorSpec("v", "float32", (3,))]), tensors)


def test_buffers_after_an_odd_number_of_bytes_are_readable(tmp_path: Path) -> None:
    tensors = {"p": torch.ones(3, dtype=torch.bfloat16), "n": torch.tensor([2**40, -1])}
    layout = Layout.of([TensorSpec("p", "bfloat16", (3,)), TensorSpec("n", "int64", (2,), "buffers")])
    write_model(tmp_path / "m", layout, tensors)
    found = views(map_file(tmp_path / "m", layout), layout)
    assert torch.equal(found["n"], tensors["n"])
    assert torch.equal(found["p"], tensors["p"])


def test_a_transposed_parameter_is_written_in_its_shape(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(2, 3).T
    layout = Layout.of([TensorSpec("v", "float32", (3, 2))])
    write_model(tmp_path / "m", layout, {"v": values})
    assert torch.equal(load_file(tmp_path / "m")["v"], values)


def test_a_model_without_tensors_has_a_file(tmp_path: Path) -> None:
    model = nn.ReLU()
    write_model(tmp_path / "m", layout_of(model), model)
    load_into(model, tmp_path / "m")


@pytest.mark.parametrize("model", [nn.LazyLinear(3), nn.Linear(2, 2, dtype=torch.complex64)])
def test_what_cannot_be_exchanged_is_refused(model: nn.Module) -> None:
    with pytest.raises(LayoutError, match=r"no shape yet|complex64"):
        layout_of(model)
