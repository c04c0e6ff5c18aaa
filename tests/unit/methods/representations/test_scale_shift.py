"""Scaling and shifting: what is frozen, what is trained, and how few bytes travel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from covey.errors import SpecError
from covey.learning.models.state import tensors_of
from covey.learning.task import NodeData, Split, Task
from covey.methods.contract import METHODS
from covey.methods.representations.scale_shift import ScaleShift
from covey.testing.method_rounds import MethodRounds, PlainExample, spec_of

CHANNELS, SIDE = 8, 6
BODY_BYTES = 4 * (CHANNELS * 1 + CHANNELS) + 4 * (CHANNELS * CHANNELS)
"""Scales and shifts of a layer with bias, and the scales of one without."""
HEAD_BYTES = 4 * (CHANNELS * 2 + 2)


class Pictures(Task):
    """Two classes of small pictures, and convolutions, one of them without a bias."""

    def model(self) -> nn.Module:
        body = [nn.Conv2d(1, CHANNELS, 3), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, bias=False), nn.ReLU()]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 2))

    def split(self, model: nn.Module) -> Split | None:
        assert isinstance(model, nn.Sequential)
        return Split(model[:-1], model[-1])

    def train_data(self, data: NodeData) -> TensorDataset:
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(48, 1, SIDE, SIDE, generator=generator), torch.arange(48) % 2
        return TensorDataset(x + y.view(-1, 1, 1, 1), y)


@pytest.fixture
def method() -> Callable[..., ScaleShift]:
    def made(**options: object) -> ScaleShift:
        found = METHODS.make("scale-shift", options)
        assert isinstance(found, ScaleShift)
        return found

    return made


@pytest.mark.parametrize(
    ("layer", "scale", "shape"),
    [
        (nn.Conv2d(4, 6, 3), (6, 4, 1, 1), (2, 4, 5, 5)),
        (nn.Conv1d(4, 6, 3, groups=2, bias=False), (6, 2, 1), (2, 4, 5)),
        (nn.ConvTranspose2d(4, 6, 3), (4, 6, 1, 1), (2, 4, 5, 5)),
        (nn.Linear(4, 6), (6, 1), (2, 4)),
    ],
)
def test_a_layer_computes_at_first_what_it_computed(
    method: Callable[..., ScaleShift], layer: nn.Module, scale: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    model, x = nn.ModuleDict({"body": layer, "head": nn.Linear(1, 1)}), torch.randn(shape)
    before: Tensor = layer(x)
    frozen = method(head=["head.*"]).adapt(PlainExample(), model)
    assert torch.equal(layer(x), before)
    with_bias = {"body.parametrizations.bias.original"} if layer.bias is not None else set()
    assert frozen == {"body.parametrizations.weight.original"} | with_bias
    assert tensors_of(model)["body.parametrizations.weight.0.scale"].shape == scale


def test_scale_and_shift_are_those_of_the_equation(method: Callable[..., ScaleShift]) -> None:
    layer = nn.Conv2d(2, 3, 3)
    weight, bias, x = layer.weight.detach().clone(), layer.bias, torch.randn(1, 2, 5, 5)
    assert bias is not None
    offset = bias.detach().clone()
    model = nn.ModuleDict({"body": layer, "head": nn.Linear(1, 1)})
    method(head=["head.*"]).adapt(PlainExample(), model)
    own = tensors_of(model)
    own["body.parametrizations.weight.0.scale"][:] = torch.arange(6.0).view(3, 2, 1, 1)
    own["body.parametrizations.bias.0.shift"][:] = torch.tensor([1.0, 2.0, 3.0])
    by_hand = torch.stack(
        [
            sum(
                (k * 2 + c) * nn.functional.conv2d(x[:, c : c + 1], weight[k : k + 1, c : c + 1])[0, 0]
                for c in range(2)
            )
            + offset[k]
            + (k + 1)
            for k in range(3)
        ]
    )
    assert torch.allclose(layer(x)[0], by_hand, atol=1e-5)


def test_only_scales_shifts_and_the_head_travel_and_are_trained(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("scale-shift", task={"name": f"{__name__}:Pictures"}), tmp_path)
    assert run.layout.nbytes == BODY_BYTES + HEAD_BYTES
    whole = 4 * (CHANNELS * 9 + CHANNELS + CHANNELS * CHANNELS * 9) + HEAD_BYTES
    assert run.layout.nbytes < whole / 5
    first = run.tensors()
    sent = run.train("n0").parts
    assert sum(part.artifact.size_bytes for part in sent) == run.layout.nbytes
    for _ in range(2):
        run.round()
    after = run.tensors()
    assert {name for name, values in after.items() if torch.equal(values, first[name])} == set()


def test_the_run_is_refused_where_the_frozen_weights_are_others(tmp_path: Path) -> None:
    run = MethodRounds(spec_of("scale-shift"), tmp_path / "one")
    other = MethodRounds(spec_of("scale-shift", seed=6), tmp_path / "other")
    assert run.layout.frozen
    assert run.layout.frozen != other.layout.frozen


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        ({}, nn.Linear(2, 2), "the task names none; give it a `split`"),
        ({"head": ["*"]}, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "no convolution and no linear layer beside"),
        ({"head": ["tail.*"]}, nn.Linear(2, 2), "no parameter of the model has a name like tail"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    method: Callable[..., ScaleShift], options: dict[str, object], model: nn.Module, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        method(**options).adapt(PlainExample(), model)


def test_submission_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"method\.options\.head: no parameter"):
        MethodRounds(spec_of("scale-shift", {"head": ["tail.*"]}), tmp_path)
