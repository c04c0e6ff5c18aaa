"""The committed stubs are those of the committed .proto files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.stem for path in (ROOT / "protos").glob("*.proto"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("protos") / "set.pb"
    sources = [f"covey/protos/{name}.proto" for name in FILES]
    assert protoc.main(["protoc", f"-I{ROOT}", f"--descriptor_set_out={out}", *sources]) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in found.file}


def _without_json_names(file):
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return file


@pytest.mark.parametrize("name", FILES)
def test_stubs_are_fresh(name, compiled):
    module = importlib.import_module(f"covey.protos.{name}_pb2")
    committed = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(committed)
    assert _without_json_names(committed) == _without_json_names(compiled[f"covey/protos/{name}.proto"]), (
        "the generated files are older than the .proto files: run `make protos`"
    )


@pytest.mark.parametrize("name", FILES)
def test_every_message_and_field_says_what_it_is(name):
    text = (ROOT / "protos" / f"{name}.proto").read_text()
    assert text.startswith("//")


def test_top_level_packages_are_ours():
    for package in ("covey.protos", "covey.aggregation", "covey.storage", "covey.coordinator", "covey.node", "covey"):
        assert Path(importlib.import_module(package).__file__ or "/").is_relative_to(ROOT)
