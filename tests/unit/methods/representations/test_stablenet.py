"""StableNet: without inner steps it is plain averaging; with them, the samples' weights change what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from covey.errors import SpecError
from covey.testing.method_rounds import FEATURES, MethodRounds, PlainExample, spec_of


class Linear(PlainExample):
    """A model without a body."""

    def model(self) -> nn.Module:
        return nn.Linear(FEATURES, 2)


def model_of(folder: Path, method: str, **options: object) -> tuple[str, float]:
    run = MethodRounds(spec_of(method, options), folder)
    for _ in range(2):
        run.round()
    return run.model_sha256, run.evaluate("n0")["accuracy"]


def test_without_inner_steps_it_is_plain_averaging_bit_for_bit(tmp_path: Path) -> None:
    plain, _ = model_of(tmp_path / "plain", "none")
    assert model_of(tmp_path / "zero", "stablenet", steps=0)[0] == plain
    weighted, accuracy = model_of(tmp_path / "some", "stablenet", steps=5, penalty=0.1)
    assert weighted != plain
    assert accuracy > 0.5


def test_equal_weights_are_the_loss_but_for_rounding(tmp_path: Path) -> None:
    plain = MethodRounds(spec_of("none"), tmp_path / "plain")
    equal = MethodRounds(spec_of("stablenet", {"steps": 1, "learning_rate": 1e-30}), tmp_path / "equal")
    for run in (plain, equal):
        run.round()
    for name, values in plain.tensors().items():
        assert torch.allclose(values.float(), equal.tensors()[name].float(), atol=1e-6)


def test_a_task_without_a_predictor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r'method\.name: "stablenet" needs the features .* `split`'):
        MethodRounds(spec_of("stablenet", task={"name": f"{__name__}:Linear"}), tmp_path)
