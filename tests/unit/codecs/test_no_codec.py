from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.codecs.none import NoCodec
from covey.errors import LayoutError, LimitExceeded, SpecError
from covey.options import PluginOptions, validated
from covey.testing.codecs import CodecConformance, encoded
from covey.vectors import FunctionVector, TensorVector

CONTEXT = CodecContext(seed=1, round=1)


class TestNoCodec(CodecConformance):
    idempotent = True
    refuses_non_finite = False

    def make(self) -> Codec:
        return NoCodec()


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_bytes_are_little_endian_float32_and_come_back(numbers: list[float]) -> None:
    vector = torch.tensor(numbers, dtype=torch.float32)
    d = len(vector)
    data = encoded(NoCodec(), TensorVector(vector), CONTEXT)
    assert data == struct.pack(f"<{d}f", *numbers)
    assert len(data) == NoCodec().encoded_bytes(d)
    reader = NoCodec().reader(data, d)
    assert torch.equal(reader.read(slice(0, d)), vector)
    out = torch.full((d - d // 3,), 9.0)
    reader.read(slice(d // 3, d), out)
    assert torch.equal(out, vector[d // 3 :])


@pytest.mark.parametrize(
    "vector",
    [
        torch.arange(6.0).view(2, 3).T[0],
        torch.tensor([0.0, 3.0], dtype=torch.float64),
        torch.tensor([0.0, 3.0], requires_grad=True),
    ],
)
def test_vectors_of_other_forms_are_written_as_float32(vector: Tensor) -> None:
    assert encoded(NoCodec(), FunctionVector(2, lambda columns: vector[columns]), CONTEXT) == struct.pack(
        "<2f", 0.0, 3.0
    )


def test_encoding_copies_nothing() -> None:
    vector = torch.zeros(4)
    (piece,) = NoCodec().encode(TensorVector(vector), CONTEXT)
    vector[2] = 1.0
    assert bytes(piece) == struct.pack("<4f", 0, 0, 1, 0)


def test_a_buffer_of_another_length_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="16"):
        NoCodec().reader(bytes(20), 4)
    with pytest.raises(LayoutError, match="too few"):
        NoCodec().reader(bytes(15), 4)
    with pytest.raises(LimitExceeded):
        NoCodec().reader(torch.ones(5), 4)


def test_a_mapped_file_is_read_without_copying(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        reader = NoCodec().reader(mapped, 4)
        block = reader.read(slice(1, 3))
        assert block.tolist() == [2.0, 3.0]
        mapped[4:8] = struct.pack("<f", 20)
        assert block.tolist() == [20.0, 3.0]
        del reader, block


def test_read_only_memory_and_tensors_of_bytes_are_accepted() -> None:
    data = struct.pack("<2f", 1, 2)
    assert NoCodec().reader(memoryview(data), 2).read(slice(0, 2)).tolist() == [1.0, 2.0]
    raw = torch.tensor(list(data), dtype=torch.uint8)
    reader = NoCodec().reader(raw, 2)
    assert reader.read(slice(0, 2)).data_ptr() == raw.data_ptr()
    assert reader.d == 2


def test_options_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"exchange\.options\.bits: unknown key; known keys: none"):
        NoCodec({"bits": 8})


def test_option_errors_name_key_value_and_choices() -> None:
    from typing import Literal

    class Options(PluginOptions):
        kind: Literal["l2", "linf"]

    assert validated(Options, {"kind": "l2"}, "x.options").kind == "l2"
    with pytest.raises(SpecError, match=r"x\.options\.kind: .*'l2' or 'linf' \(given: \"l1\"\)"):
        validated(Options, {"kind": "l1"}, "x.options")
    with pytest.raises(SpecError, match=r"x\.options\.kind: this key is required"):
        validated(Options, {}, "x.options")
