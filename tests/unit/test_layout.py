import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import LayoutError
from covey.layout import DTYPE_BYTES, MAX_NAME, MAX_TENSORS, Layout, TensorSpec

TENSORS = st.lists(
    st.builds(
        TensorSpec,
        name=st.text(min_size=1, max_size=20),
        dtype=st.sampled_from(sorted(DTYPE_BYTES)),
        shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
        part=st.sampled_from(["model", "buffers"]),
    ),
    unique_by=lambda tensor: tensor.name,
    max_size=8,
)


@given(TENSORS)
def test_the_canonical_form_reads_back(tensors):
    layout = Layout.of(tensors)
    assert Layout.from_json(layout.canonical_bytes()) == layout
    assert layout.canonical_bytes().isascii()
    assert layout.sha256 == hashlib.sha256(layout.canonical_bytes()).hexdigest()
    assert sorted(layout.tensors, key=repr) == sorted(tensors, key=repr)


@given(TENSORS)
def test_model_before_buffers_and_wide_before_narrow_so_that_all_are_aligned(tensors):
    layout = Layout.of(tensors)
    assert layout.part("model").tensors + layout.part("buffers").tensors == layout.tensors
    for part in ("model", "buffers"):
        offset = 0
        for tensor in layout.part(part).tensors:
            assert offset % DTYPE_BYTES[tensor.dtype] == 0
            offset += tensor.nbytes
        assert layout.part(part).nbytes == offset
    assert layout.nbytes == layout.part("model").nbytes + layout.part("buffers").nbytes
    assert layout.numel == sum(tensor.numel for tensor in tensors)


def test_equal_widths_stay_in_the_models_order():
    names = ["b", "a", "c"]
    tensors = [TensorSpec(name, "float32", (1,)) for name in names]
    wide = TensorSpec("w", "float64", ())
    assert [t.name for t in Layout.of([*tensors, wide]).tensors] == ["w", "b", "a", "c"]


@given(TENSORS)
def test_the_header_is_that_of_a_safetensors_file(tensors):
    layout = Layout.of(tensors)
    (length,) = struct.unpack("<Q", layout.header[:8])
    assert len(layout.header) == 8 + length
    assert len(layout.header) % 64 == 0
    assert layout.file_bytes == len(layout.header) + layout.nbytes
    entries = json.loads(layout.header[8:])
    assert entries.pop("__metadata__")["layout"] == layout.sha256
    assert list(entries) == [tensor.name for tensor in layout.tensors]


def test_the_safetensors_library_reads_header_and_flat_buffer():
    layout = Layout.of(
        [
            TensorSpec("bias", "float32", (2,)),
            TensorSpec("n", "int64", (), "buffers"),
            TensorSpec("w", "float64", (2, 2)),
        ]
    )
    flat = np.arange(4.0).tobytes() + np.array([7, 8], np.float32).tobytes() + np.int64(9).tobytes()
    read = safetensors.numpy.load(layout.header + flat)
    assert read["w"].tolist() == [[0, 1], [2, 3]]
    assert read["bias"].tolist() == [7, 8]
    assert read["n"].item() == 9


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (TensorSpec("x", "complex64", (1,)), "complex64"),
        (TensorSpec("x", "float32", (1,), "state"), "state"),
        (TensorSpec("", "float32", (1,)), "not accepted"),
        (TensorSpec("n" * (MAX_NAME + 1), "float32", (1,)), "not accepted"),
        (TensorSpec("x", "float32", (-1,)), "shape"),
        (TensorSpec("x", "float32", (1,) * 17), "shape"),
    ],
)
def test_tensors_that_are_refused(tensor, reason):
    with pytest.raises(LayoutError, match=reason):
        Layout.of([tensor])


def test_names_are_unique_and_their_number_is_bounded():
    with pytest.raises(LayoutError, match="same name"):
        Layout.of([TensorSpec("x", "float32", (1,)), TensorSpec("x", "int8", (1,), "buffers")])
    with pytest.raises(LayoutError, match="at most"):
        Layout.of([TensorSpec("x", "float32", ())] * (MAX_TENSORS + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"7",
        b"{}x",
        b'[["x"]]',
        b'[["x","float32",[1],"model","more"]]',
        b"[" * 100_000,
        b'[["x","float32",["a"],"model"]]',
        b'[["x","float32",1,"model"]]',
        b'[["x","float32",[Infinity],"model"]]',
        b"\xff\xfe\x00",
        b'[["b","int8",[1],"buffers"],["x","float32",[1],"model"]]',
    ],
)
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(LayoutError):
        Layout.from_json(text)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.floats(), lambda v: st.lists(v, max_size=4)))
def test_hostile_json_never_crashes(value):
    try:
        layout = Layout.from_json(json.dumps(value))
    except LayoutError:
        return
    assert Layout.from_json(layout.canonical_bytes()) == layout


def test_a_pattern_selects():
    layout = Layout.of([TensorSpec(name, "float32", (2,)) for name in ("head.w", "body.w", "head.b")])
    assert [tensor.name for tensor in layout.matching(r"^head\.").tensors] == ["head.w", "head.b"]
