"""Federated averaging as anyone would write it, to compare with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from covey.layout import Layout
from covey.learning.partition import partition
from covey.seeds import derive_seed
from covey.spec import RunSpec
from tests.integration.worker.runs import NODES
from tests.unit.worker import worker_tasks


def plain_model() -> nn.Module:
    torch.manual_seed(derive_seed(7, "model"))
    return worker_tasks.Normed().model()


def plain_local_training(model: nn.Module, spec: RunSpec, index: int, number: int) -> int:
    """A loop as anyone would write it, over the same part and the same order of batches."""
    data = worker_tasks.made(48, 1)
    part = partition(spec.data, index, NODES, spec.seed, examples=len(data))
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "batches", number, index))
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.training.learning_rate)
    model.train()
    for _ in range(spec.training.local_epochs or 0):
        for batch in part[torch.randperm(len(part), generator=generator)].split(spec.training.batch_size):
            x, y = (t[batch] for t in data.tensors)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return len(part)


def plain_fedavg(spec: RunSpec, rounds: int) -> dict[str, torch.Tensor]:
    globally = plain_model().state_dict()
    for number in range(1, rounds + 1):
        local, weights = [], []
        for index in range(NODES):
            model = plain_model()
            model.load_state_dict(globally)
            weights.append(plain_local_training(model, spec, index, number))
            local.append(model.state_dict())
        shares = [w / sum(weights) for w in weights]
        globally = {
            name: sum(s * values[name].double() for s, values in zip(shares, local, strict=True)).to(first.dtype)
            for name, first in local[0].items()
        }
    return globally


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-5, atol=1e-6)


def flat(path: Path, layout: Layout) -> torch.Tensor:
    tensors = load_file(path)
    return torch.cat([tensors[spec.name].flatten() for spec in layout.tensors])
