"""A model that somebody gives: whole, of the run's form, finite, and every fault of it named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from covey.errors import LayoutError
from covey.layout import Layout
from covey.learning.models.given import given_model
from covey.learning.models.state import layout_of, tensors_of, write_model


class Tied(nn.Module):
    """Tied weights, and a buffer with infinities."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Tied()


def state_of(model, **changes):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in (state | changes).items() if tensor is not None}


def read(path, model, kept=None):
    with given_model(path, layout_of(model), tensors_of(model), kept) as given:
        return {name: tensor.clone() for name, tensor in given.items()}


def refusal(tmp_path, model, kept=None, **changes):
    save_file(state_of(model, **changes), tmp_path / "given.safetensors")
    with pytest.raises(LayoutError) as refused:
        read(tmp_path / "given.safetensors", model, kept)
    return str(refused.value)


def test_a_state_dict_becomes_the_run_s_own_file_whatever_its_order(tmp_path, model):
    layout, given, own = layout_of(model), tmp_path / "given.safetensors", tmp_path / "own.safetensors"
    save_file(state_of(model), given)
    with given_model(given, layout, tensors_of(model)) as tensors:
        written = write_model(tmp_path / "again.safetensors", layout, tensors)
    assert written == write_model(own, layout, model)
    assert read(own, model).keys() == tensors_of(model).keys()  # a version's own file has tied weights once


@pytest.mark.parametrize("dropped", ["embed.weight", "head.weight"])
def test_one_name_of_tied_weights_is_enough(tmp_path, model, dropped):
    save_file(state_of(model, **{dropped: None}), tmp_path / "given.safetensors")
    assert torch.equal(read(tmp_path / "given.safetensors", model)["embed.weight"], model.embed.weight)


def test_every_fault_is_named_in_one_message(tmp_path, model):
    changes = {"norm.bias": None, "norm.weight": torch.ones(3), "other": torch.ones(1), "mask": torch.zeros(2).half()}
    text = refusal(tmp_path, model, {"other": "stays on each node"}, **changes)
    assert "missing: 'norm.bias' F32 [2]" in text
    assert "unexpected: 'other' (which stays on each node)" in text
    assert "another form: 'norm.weight' is F32 [3], and not F32 [2], 'mask' is F16 [2], and not F32 [2]" in text


def test_frozen_tensors_may_be_there_as_the_task_gives_them(tmp_path, model):
    whole, path = tensors_of(model), tmp_path / "given.safetensors"
    tensors = tuple(tensor for tensor in layout_of(model).tensors if not tensor.name.startswith("norm."))
    shared, frozen = Layout(tensors, layout_of(model).aliases), {name for name in whole if name.startswith("norm.")}
    save_file(state_of(model), path)
    with given_model(path, shared, whole, frozen=frozen) as given:
        assert set(given) == set(whole) - frozen
    save_file(state_of(model, **{"norm.bias": torch.tensor([0.0, -0.0]), "norm.weight": None}), path)
    with (
        pytest.raises(LayoutError, match=r"fit the run's: frozen, with other values here .*: 'norm.bias'$"),
        given_model(path, shared, whole, frozen=frozen),
    ):
        pass


def test_of_many_faults_some_are_named(tmp_path, model):
    text = refusal(tmp_path, model, **{f"extra-{number:03}": torch.ones(1) for number in range(50)})
    assert "'extra-019' and 30 more" in text
    assert "extra-020" not in text


def test_values_that_are_not_finite_are_refused_but_where_the_task_has_them(tmp_path, model):
    save_file(state_of(model), tmp_path / "masked.safetensors")
    assert torch.isinf(read(tmp_path / "masked.safetensors", model)["mask"]).tolist() == [False, True]
    changes = {"norm.weight": torch.tensor([1.0, float("nan")]), "mask": torch.tensor([float("inf"), 0.0])}
    assert "not finite: 'norm.weight', 'mask'" in refusal(tmp_path, model, **changes)


def test_tied_weights_that_differ_are_refused(tmp_path, model):
    assert "tied weights that differ: 'head.weight' and 'embed.weight'" in refusal(
        tmp_path, model, **{"head.weight": torch.zeros(2, 3)}
    )


def lying(**entry):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model",
        (1 << 62).to_bytes(8, "little") + b"{}",
        lying(shape=[1 << 40]),
        lying(data_offsets=[0, 1 << 40]),
        lying(data_offsets=[2, 1]),
        lying(dtype="F31"),
        lying()[:-2],
        lying() + b"more",
    ],
)
def test_a_header_that_lies_is_no_model(tmp_path, model, content):
    (tmp_path / "given.safetensors").write_bytes(content)
    with pytest.raises(LayoutError, match="not a whole safetensors file"):
        read(tmp_path / "given.safetensors", model)
