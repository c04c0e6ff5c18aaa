from pathlib import Path

import pytest
import torch
from torch import nn

from covey.errors import LayoutError, TaskError
from covey.learning.models.state import layout_of, tensors_of, write_model
from covey.vectors import spans
from covey.worker.files.mapped import MappedModel, map_bytes, map_float32, runs_of_one_dtype
from covey.worker.files.updates import ModelVector


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b_half = nn.Parameter(torch.arange(5, dtype=torch.bfloat16))
        self.a_single = nn.Parameter(torch.arange(7, dtype=torch.float32).reshape(1, 7) + 0.5)
        self.wide = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.last = nn.Parameter(torch.arange(4, dtype=torch.float32) - 2)
        self.empty = nn.Parameter(torch.empty(0))
        self.register_buffer("seen", torch.tensor(9))


def mapped(tmp_path: Path) -> tuple[Mixed, MappedModel]:
    model = Mixed()
    layout = layout_of(model)
    write_model(tmp_path / "model", layout, model)
    return model, MappedModel(tmp_path / "model", layout)


def in_order(model: nn.Module) -> torch.Tensor:
    tensors = tensors_of(model)
    return torch.cat([tensors[s.name].flatten().float() for s in layout_of(model).part("model").tensors])


def test_any_block_of_a_model_of_mixed_dtypes(tmp_path: Path) -> None:
    model, found = mapped(tmp_path)
    whole = in_order(model)
    assert found.d == len(whole) == 17
    assert found.buffers["seen"].item() == 9
    for start in range(found.d):
        for stop in range(start + 1, found.d + 1):
            block = found.read(slice(start, stop))
            assert block.dtype == torch.float32
            assert torch.equal(block, whole[start:stop])
            stored = found.as_stored(slice(start, stop), block)
            assert torch.equal(torch.cat([piece.float() for piece in stored]), block)
    assert [piece.dtype for piece in found.as_stored(slice(0, 17), whole)] == [
        torch.float64,
        torch.float32,
        torch.bfloat16,
    ]
    assert [(start, stop) for start, stop, _, _ in runs_of_one_dtype(layout_of(model).part("model"))] == [
        (0, 1),
        (1, 12),
        (12, 17),
    ]


def test_a_block_of_float32_is_a_view(tmp_path: Path) -> None:
    _, found = mapped(tmp_path)
    assert found.read(slice(2, 5)).data_ptr() == found.read(slice(1, 5)).data_ptr() + 4


def test_deltas_are_local_minus_base(tmp_path: Path) -> None:
    model, base = mapped(tmp_path)
    layout, before = layout_of(model), in_order(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    source = ModelVector(layout, tensors_of(model), base)
    assert torch.equal(source.read(slice(0, source.d)), 2 * before)
    assert torch.equal(source.read(slice(3, 9)), 2 * before[3:9])


@pytest.mark.parametrize("width", [1, 999, 100_000, 1_000_000])
def test_a_vector_reads_the_same_at_any_width_and_gaps_are_zeros(width: int) -> None:
    model = nn.Sequential(nn.Linear(70, 60), nn.Linear(60, 10))
    layout, tensors = layout_of(model), tensors_of(model)
    del tensors["0.bias"]
    source = ModelVector(layout, tensors)
    whole = torch.cat([source.read(columns).clone() for columns in spans(source.d, width)])
    bias = slice(4200, 4260)
    assert not whole[bias].any()
    expected = in_order(model)
    expected[bias] = 0
    assert torch.equal(whole, expected)


def test_a_vector_that_is_not_finite_is_refused() -> None:
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.bias[1] = torch.nan
    source = ModelVector(layout_of(model), tensors_of(model))
    with pytest.raises(TaskError, match="diverged"):
        source.read(slice(0, source.d))


def test_files_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(12))
    assert torch.equal(map_float32(path, 3), torch.zeros(3))
    with pytest.raises(LayoutError):
        map_float32(path, 4)
    with pytest.raises(LayoutError):
        MappedModel(path, layout_of(Mixed()))
    assert len(map_bytes(path)) == 12
    path.write_bytes(b"")
    assert map_bytes(path) == b""
    assert len(map_float32(path, 0)) == 0
