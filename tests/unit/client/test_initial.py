"""The file that a specification names, looked at before it is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.artifact import CHUNK_BYTES, artifact_of
from covey.client.models.initial import chunks_of, given_file
from covey.errors import NotFound, SpecError
from covey.layout import safetensors_header
from covey.spec import parse_toml

DIGEST = "sha256:" + "0" * 64


def spec(initial, extra=""):
    return parse_toml(f'name = "x"\n[task]\nname = "digits"\n[model]\ninitial = "{initial}"\n{extra}')


@pytest.fixture
def model(tmp_path):
    """A file of several chunks."""
    path = tmp_path / "begin.safetensors"
    size = 2 * CHUNK_BYTES
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    path.write_bytes(safetensors_header({"a": entry}) + bytes(size))
    return path


def test_a_file_is_seen_from_the_specification_s_folder_and_sent_in_chunks(tmp_path, model):
    given = given_file(spec(model.name), tmp_path)
    assert given is not None
    assert given.section.initial == f"sha256:{given.artifact.digest}"

    async def messages():
        return [message async for message in chunks_of(given)]

    others = asyncio.run(messages())
    assert artifact_of([message.data for message in others]) == given.artifact
    assert b"".join(message.data for message in others) == model.read_bytes()


@pytest.mark.parametrize("initial", ["", "run:digits", "run:digits@7", "run:digits@best", DIGEST])
def test_what_names_no_file_needs_none(tmp_path, initial):
    assert given_file(spec(initial), tmp_path) is None


@pytest.mark.parametrize(
    ("initial", "said"),
    [
        ("run:", 'write "run:NAME"'),
        ("run:a@b", 'write "run:NAME"'),
        ("sha256:12", "64 hexadecimal digits"),
        ("model.PT", "weights_only=True"),
        ("x.bin", "is a pickle"),
    ],
)
def test_what_cannot_be_meant_is_refused(initial, said):
    with pytest.raises(SpecError, match=said):
        spec(initial)
    with pytest.raises(SpecError, match="the coordinator notes it"):
        spec("begin.safetensors", 'parent = "a@1"')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 whatever", "is a pickle"),
        (b"\x80\x02}q\x00", "is a pickle"),
        (b"", "is not a safetensors file"),
        ((1 << 50).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ((20).to_bytes(8, "little") + b"[]" + b" " * 20, "is not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_not_sent(tmp_path, content, said):
    (tmp_path / "begin.safetensors").write_bytes(content)
    with pytest.raises(SpecError, match=said):
        given_file(spec("begin.safetensors"), tmp_path)
    with pytest.raises(NotFound, match="cannot be read"):
        given_file(spec("nothing.safetensors"), tmp_path)


def test_the_command_that_it_names_converts(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"weight": weight.t(), "tied": weight}, tmp_path / "begin.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as refused:
        spec("begin.pt")
    code = str(refused.value).split('python -c "')[1].split('"; and name ')[0]
    exec(code, {})
    assert given_file(spec("begin.safetensors"), Path()) is not None
    from safetensors.torch import load_file

    assert torch.equal(load_file("begin.safetensors")["weight"], weight.t())
