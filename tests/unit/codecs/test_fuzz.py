"""Any bytes, to the decoder of every installed codec: refused with an error of ours, or decoded within the layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.codecs.contract import CODECS, Codec, CodecContext
from covey.errors import CoveyError
from covey.layout import Layout, TensorSpec
from covey.testing.codecs import decoded, encoded, gaussian
from covey.vectors import TensorVector

OPTIONS: dict[str, dict[str, Any]] = {
    "dp-sign": {"epsilon": 0.5, "delta": 1e-5, "clip": 1.0},
    "sto-sign": {"bound": 2.0},
    "top-k": {"fraction": 0.1},
    "random-k": {"fraction": 0.1},
}
"""Of codecs that cannot do without."""
VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "codec_vectors.json").read_text())


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "top-k coded": ("top-k", {"fraction": 0.1, "indices": "elias-fano"}),
    "top-k coded, 2 bits": ("top-k", {"fraction": 0.2, "indices": "elias-fano", "value_bits": 2}),
    "terngrad trits": ("terngrad", {"packing": "trits"}),
}
"""Further forms of some codecs' messages."""


def make(form: str) -> Codec:
    name, options = FORMS.get(form, (form, OPTIONS.get(form, {})))
    return CODECS.make(name, options)


INSTALLED = [plugin.name for plugin in CODECS.installed()]
NAMES = [*INSTALLED, *FORMS]


def layouts(d: int) -> list[Layout | None]:
    parts = (d // 3, 0, d - d // 3)
    return [None, Layout(tuple(TensorSpec(f"t{i}", "float32", (part,)) for i, part in enumerate(parts)))]


def require_refused_or_within_layout(codec: Codec, data: bytes, d: int, layout: Layout | None) -> None:
    try:
        reader = codec.reader(data, d, layout)
    except CoveyError:
        return
    assert len(data) <= codec.encoded_bytes(d, layout)
    out = torch.full((d + 2,), 7.0)
    reader.read(slice(0, d), out[1 : 1 + d])
    assert (out[0].item(), out[-1].item()) == (7.0, 7.0)
    assert codec.lossless or out.isfinite().all()
    assert len(reader.signs(slice(0, d))) == -(-d // 8)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_bytes_are_refused_or_decode_within_the_layout(name: str, data: st.DataObject) -> None:
    codec, d = make(name), data.draw(st.integers(0, 70))
    for layout in layouts(d):
        size = codec.encoded_bytes(d, layout) + data.draw(st.sampled_from([0, 0, 0, -1, 1]))
        require_refused_or_within_layout(
            codec, data.draw(st.binary(min_size=max(size, 0), max_size=max(size, 0))), d, layout
        )
        require_refused_or_within_layout(codec, data.draw(st.binary(max_size=300)), d, layout)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_message_with_changed_bytes_is_refused_or_decodes_within_the_layout(name: str, data: st.DataObject) -> None:
    codec, d = make(name), data.draw(st.integers(1, 70))
    for layout in layouts(d):
        message = bytearray(encoded(codec, TensorVector(gaussian(d)), CodecContext(seed=1, round=1, layout=layout)))
        for _ in range(data.draw(st.integers(1, 4))):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        require_refused_or_within_layout(codec, bytes(message), d, layout)


@pytest.mark.parametrize("name", NAMES)
def test_a_message_is_not_one_of_another_length(name: str) -> None:
    codec = make(name)
    message = encoded(codec, TensorVector(gaussian(64)), CodecContext(seed=1, round=1))
    for d in (*range(40), *range(90, 120), 1 << 40):
        with pytest.raises(CoveyError):
            codec.reader(message, d)


@pytest.mark.parametrize("case", VECTORS["vectors"], ids=lambda case: f"{case['codec']}-{case['name']}")
def test_the_published_vectors_hold(case: dict[str, Any]) -> None:
    codec = CODECS.make(case["codec"], case["options"])
    layout = None
    if case["layout"] is not None:
        layout = Layout(tuple(TensorSpec(f"t{i}", "float32", (n,)) for i, n in enumerate(case["layout"])))
    data = bytes.fromhex(case["bytes"])
    values = torch.frombuffer(bytearray.fromhex(case["decoded"]), dtype=torch.float32)
    assert torch.equal(decoded(codec, data, len(values), layout), values)
    if case["input"] is not None:
        vector = torch.frombuffer(bytearray.fromhex(case["input"]), dtype=torch.float32)
        assert encoded(codec, TensorVector(vector), CodecContext(seed=0, round=1, layout=layout)) == data


def test_every_codec_has_a_published_vector() -> None:
    assert {case["codec"] for case in VECTORS["vectors"]} >= set(INSTALLED)
    for name, options in FORMS.values():
        published = [case["options"] for case in VECTORS["vectors"] if case["codec"] == name]
        assert any(options.keys() - {"fraction"} <= found.keys() for found in published)
