import copy
from typing import Any

import pytest
import torch
from torch import nn

from covey.errors import SpecError
from covey.learning.optimizers import local_optimizer
from covey.spec import Schedule, TrainingSection


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": ({"optimizer": "sgd"}, lambda ps: torch.optim.SGD(ps, 0.05)),
    "sgd-decay": ({"optimizer": "sgd", "weight_decay": 0.1}, lambda ps: torch.optim.SGD(ps, 0.05, weight_decay=0.1)),
    "momentum": (
        {"optimizer": "momentum", "momentum": 0.8, "weight_decay": 0.01},
        lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.8, weight_decay=0.01),
    ),
    "nesterov": (
        {"optimizer": "momentum", "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "adam": (
        {"optimizer": "adam", "betas": (0.8, 0.9), "weight_decay": 0.01},
        lambda ps: torch.optim.Adam(ps, 0.05, betas=(0.8, 0.9), weight_decay=0.01),
    ),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.1}, lambda ps: torch.optim.AdamW(ps, 0.05, weight_decay=0.1)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sparse", [False, True])
def test_equals_torch_bit_for_bit(case: str, sparse: bool) -> None:
    settings, reference = CASES[case]
    mine, theirs = network(), network()
    ours = local_optimizer(mine.parameters(), TrainingSection(learning_rate=0.05, **settings), 1, 1)
    torchs = reference(theirs.parameters())
    for step in range(12):
        for model in (mine, theirs):
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().sum().backward()
            if sparse and step % 3 == 1:
                next(model.parameters()).grad = None
        ours.step()
        torchs.step()
        torchs.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
        assert all(p.grad is None for p in mine.parameters())


def test_frozen_parameters_stay() -> None:
    model = network()
    first = next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(first)
    optimizer = local_optimizer(model.parameters(), TrainingSection(weight_decay=0.5), 1, 1)
    model(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert torch.equal(first, before)


def test_schedule_scales_the_round() -> None:
    training = TrainingSection(learning_rate=0.4, schedule={"learning_rate": Schedule(kind="step", factor=0.5)})
    p = nn.Parameter(torch.zeros(3))
    optimizer = local_optimizer([p], training, round=3, rounds=9)
    p.sum().backward()
    optimizer.step()
    assert torch.allclose(p, torch.full((3,), -0.1))


def test_momentum_of_one_is_refused() -> None:
    training = TrainingSection(optimizer="momentum", schedule={"momentum": Schedule(kind="constant", factor=1.2)})
    with pytest.raises(SpecError, match=r"momentum 1\.08 in round 1"):
        local_optimizer(network().parameters(), training, 1, 5)
