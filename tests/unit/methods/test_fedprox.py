from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from covey.errors import SpecError
from covey.testing.method_rounds import MethodRounds, spec_of
from tests.unit.methods.naive import first_model, mean, shares, trained

NODES = 3


def naive_rounds(mu: float, rounds: int) -> dict[str, Tensor]:
    """The paper's objective, with the term in the loss."""
    spec = spec_of("fedprox")
    state = {name: value.clone() for name, value in first_model(spec).state_dict().items()}
    for number in range(1, rounds + 1):

        def penalty(model: nn.Module, anchor: dict[str, Tensor] = state) -> Tensor:
            distances = [(p - anchor[name]).square().sum() for name, p in model.named_parameters()]
            return mu / 2 * torch.stack(distances).sum()

        states = [trained(spec, state, index, NODES, number, penalty=penalty)[0] for index in range(NODES)]
        state = mean(states, shares(spec, list(range(NODES)), NODES))
    return state


@pytest.mark.parametrize("mu", [0.1, 2.0])
def test_rounds_are_those_of_the_paper_s_objective(tmp_path: Path, mu: float) -> None:
    run = MethodRounds(spec_of("fedprox", {"mu": mu}), tmp_path, NODES)
    for _ in range(3):
        run.round()
    found, expected = run.tensors(), naive_rounds(mu, 3)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_a_larger_mu_stays_nearer(tmp_path: Path) -> None:
    def moved(mu: float) -> float:
        run = MethodRounds(spec_of("fedprox", {"mu": mu}), tmp_path / str(mu), NODES)
        before = run.tensors()
        run.round()
        return sum(float((value - before[name]).norm()) for name, value in run.tensors().items() if "weight" in name)

    assert moved(5.0) < moved(1.0) < moved(0.0)


def test_mu_zero_is_plain_averaging_to_the_bit(tmp_path: Path) -> None:
    runs = [
        MethodRounds(spec_of("fedprox", {"mu": 0.0}), tmp_path / "fedprox", NODES),
        MethodRounds(spec_of("none"), tmp_path / "none", NODES),
    ]
    for run in runs:
        for _ in range(2):
            run.round()
    assert runs[0].model_sha256 == runs[1].model_sha256


@pytest.mark.parametrize(
    ("options", "sections", "text"),
    [
        ({"mu": -1}, {}, r"^method\.options\.mu: .*greater than or equal to 0"),
        (
            {},
            {"exchange": {"payload": "gradient"}, "training": {"local_steps": 1}},
            r'^exchange\.payload: at the base model the term of "fedprox" has no gradient; choose',
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options, sections, text) -> None:
    with pytest.raises(SpecError, match=text):
        MethodRounds(spec_of("fedprox", options, **sections), tmp_path, NODES)
