"""Seeds give the bits that `torch.manual_seed` gives, whatever was drawn before."""

from __future__ import annotations

import pytest
import torch

from covey.learning.training import seeding
from covey.learning.training.seeding import seed_torch


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("has_accelerator", [True, False])
def test_the_bits_are_those_of_torch(monkeypatch, seed, has_accelerator):
    monkeypatch.setattr(seeding, "_has_accelerator", lambda: has_accelerator)
    torch.manual_seed(seed)
    expected = torch.randn(5), torch.randperm(9), torch.nn.Linear(3, 2).weight.detach()
    torch.randn(100)
    seed_torch(seed)
    found = torch.randn(5), torch.randperm(9), torch.nn.Linear(3, 2).weight.detach()
    assert all(map(torch.equal, found, expected))
